# ruff: noqa: E501 - one operation a line
"""The HTTP API as one table, from which its routes and the documents that the client reads are made.

The client never hard-codes a path: it looks operations up by id in documents in the Swagger 2 format. Only
what it needs is in them; names of paths and parameters are those of the protocol it was written for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

BACKEND, LEADERBOARD, ARTIFACTS = "/api/backend/v1", "/api/leaderboard/v1", "/api/artifacts/v1"


@dataclass(frozen=True)
class Endpoint:
    """One operation: where it is, what it takes, what it gives.

    Attributes:
        name: operationId.
        method: of HTTP.
        path: URL path.
        query: names of query parameters; ``name[]`` may be repeated, ``name#`` is an integer.
        body: name of the body parameter.
        headers: names of header parameters.
        result: definition of the answer, ``[Name]`` for a list of it, "" for none.
        public: needs no token.
    """

    name: str
    method: str
    path: str
    query: tuple[str, ...] = ()
    body: str = ""
    headers: tuple[str, ...] = ()
    result: str = ""
    public: bool = False


def _endpoint(line: str) -> Endpoint:
    name, method, path, *rest = line.split()
    values: dict[str, Any] = {"query": (), "body": "", "headers": (), "result": "", "public": False}
    for word in rest:
        key, _, value = word.partition("=")
        if key in ("query", "headers"):
            values[key] = tuple(value.split(","))
        else:
            values[key] = value or True
    return Endpoint(name, method, path, **values)


_BACKEND = f"""
getClientConfig GET {BACKEND}/clients/config query=alpha headers=X-Neptune-Api-Token result=ClientConfig public
exchangeApiToken GET {BACKEND}/authorization/oauth-token headers=X-Neptune-Api-Token result=Tokens public
getProject GET {BACKEND}/projects/get query=projectIdentifier result=Project
listProjects GET {BACKEND}/projects query=organizationIdentifier,userRelation,searchTerm,sortBy[],sortDirection[],offset#,limit# result=ProjectList
createProject POST {BACKEND}/projects body=projectToCreate result=Project
deleteProject DELETE {BACKEND}/projects query=projectIdentifier
listOrganizations GET {BACKEND}/myOrganizations result=[Organization]
addProjectMember POST {BACKEND}/projects/members query=projectIdentifier body=member result=Member
listProjectMembers GET {BACKEND}/projects/membersOf query=projectIdentifier result=[Member]
deleteProjectMember DELETE {BACKEND}/projects/members/{{userId}} query=projectIdentifier
listOrganizationMembers GET {BACKEND}/organizations2/{{organizationIdentifier}}/members result=[WorkspaceMember]
listServiceAccounts GET {BACKEND}/serviceAccounts query=organizationIdentifier,deactivated result=[ServiceAccount]
addProjectServiceAccount POST {BACKEND}/projects/service_accounts query=projectIdentifier body=account result=Member
listProjectServiceAccounts GET {BACKEND}/projects/service_accounts query=projectIdentifier result=[Member]
deleteProjectServiceAccount DELETE {BACKEND}/projects/service_accounts/{{serviceAccountId}} query=projectIdentifier
"""

_ATTRIBUTES = f"{LEADERBOARD}/attributes"
_UPLOAD = "query=experimentIdentifier,attribute"
_LEADERBOARD = f"""
createExperiment POST {LEADERBOARD}/experiments headers=X-Neptune-CliVersion body=experimentCreationParams:NewExperiment result=Experiment
getExperiment GET {LEADERBOARD}/experiments query=experimentId result=Experiment
trashExperiments POST {LEADERBOARD}/experiments/trash query=projectIdentifier body=experimentIdentifiers result=BulkResult
restoreExperiments POST {LEADERBOARD}/experiments/trash/restore query=projectIdentifier body=experimentIdentifiers result=BulkResult
deleteExperiments POST {LEADERBOARD}/experiments/trash/delete query=projectIdentifier body=experimentIdentifiers result=BulkResult
deleteAllExperiments POST {LEADERBOARD}/experiments/trash/deleteAll query=projectIdentifier result=BulkResult
signalRuns POST {LEADERBOARD}/experiments/signal query=projectIdentifier body=signal result=BulkResult
ping POST {_ATTRIBUTES}/ping query=experimentId
executeOperations POST {_ATTRIBUTES}/operations query=experimentId body=operations result=[Error]
getExperimentAttributes GET {_ATTRIBUTES} query=experimentId result=Attributes
getFloatAttribute GET {_ATTRIBUTES}/floats query=experimentId,attribute result=Float
getIntAttribute GET {_ATTRIBUTES}/integers query=experimentId,attribute result=Int
getBoolAttribute GET {_ATTRIBUTES}/booleans query=experimentId,attribute result=Bool
getStringAttribute GET {_ATTRIBUTES}/strings query=experimentId,attribute result=String
getDatetimeAttribute GET {_ATTRIBUTES}/datetimes query=experimentId,attribute result=Datetime
getFileAttribute GET {_ATTRIBUTES}/files query=experimentId,attribute result=File
getArtifactAttribute GET {_ATTRIBUTES}/artifacts query=experimentId,attribute result=Artifact
getFloatSeriesAttribute GET {_ATTRIBUTES}/floatSeries query=experimentId,attribute result=FloatSeries
getStringSeriesAttribute GET {_ATTRIBUTES}/stringSeries query=experimentId,attribute result=StringSeries
getStringSetAttribute GET {_ATTRIBUTES}/stringSets query=experimentId,attribute result=StringSet
getFloatSeriesValues GET {_ATTRIBUTES}/series/float query=experimentId,attribute,limit#,offset# result=FloatValues
getStringSeriesValues GET {_ATTRIBUTES}/series/string query=experimentId,attribute,limit#,offset# result=StringValues
getImageSeriesValues GET {_ATTRIBUTES}/series/image query=experimentId,attribute,limit#,offset# result=ImageValues
getImageSeriesValue GET {_ATTRIBUTES}/series/image/single query=experimentId,attribute,index# result=file
downloadAttribute GET {_ATTRIBUTES}/download query=experimentId,attribute result=file
prepareForDownloadFileSetAttributeZip POST {_ATTRIBUTES}/downloadFileSetZipRequest query=experimentId,attribute result=Download
getDownloadPrepareRequest GET {LEADERBOARD}/download/downloadRequest query=id result=Download
download GET {LEADERBOARD}/download/downloadFile query=id result=file
lsFileSetAttribute GET {_ATTRIBUTES}/ls query=experimentId,attribute,path result=[FileEntry]
uploadFileSetAttributeTar POST {_ATTRIBUTES}/uploadFileSetTar query=experimentId,attribute,reset result=Uploaded
fileAtomUpload POST {_ATTRIBUTES}/storage/file/upload {_UPLOAD},ext result=Uploaded
fileAtomMultipartUploadStart POST {_ATTRIBUTES}/storage/file/upload/start {_UPLOAD},ext,totalLength# result=Upload
fileAtomMultipartUploadPart POST {_ATTRIBUTES}/storage/file/upload/part {_UPLOAD},uploadId,uploadPartIdx# headers=X-Range result=Uploaded
fileAtomMultipartUploadFinish POST {_ATTRIBUTES}/storage/file/upload/finish {_UPLOAD},uploadId result=Uploaded
fileSetFileUpload POST {_ATTRIBUTES}/storage/fileset/upload {_UPLOAD},subPath result=Uploaded
fileSetFileMultipartUploadStart POST {_ATTRIBUTES}/storage/fileset/upload/start {_UPLOAD},subPath,totalLength# result=Upload
fileSetFileMultipartUploadPart POST {_ATTRIBUTES}/storage/fileset/upload/part {_UPLOAD},subPath,uploadId,uploadPartIdx# headers=X-Range result=Uploaded
fileSetFileMultipartUploadFinish POST {_ATTRIBUTES}/storage/fileset/upload/finish {_UPLOAD},subPath,uploadId result=Uploaded
searchLeaderboardEntries POST {LEADERBOARD}/leaderboard/entries/search query=projectIdentifier,type[] body=params result=Entries
searchLeaderboardAttributes POST {LEADERBOARD}/leaderboard/attributes/search query=projectIdentifier,type[],search,limit# body=params result=AttributeNames
createEmptyCheckpoint POST {LEADERBOARD}/notebooks/{{notebookId}}/checkpoints2 body=checkpoint result=Checkpoint
"""

_ARTIFACTS = f"""
createNewArtifact PUT {ARTIFACTS}/artifact query=projectIdentifier,hash,size#,parentIdentifier result=ArtifactVersion
createArtifactVersion POST {ARTIFACTS}/artifact query=projectIdentifier,hash,parentIdentifier body=artifactFilesDTO result=ArtifactVersion
uploadArtifactFilesMetadata PUT {ARTIFACTS}/artifact/files query=projectIdentifier,hash body=artifactFilesDTO result=ArtifactVersion
listArtifactFiles GET {ARTIFACTS}/artifact/files query=projectIdentifier,hash result=ArtifactFiles
"""

DOCUMENTS = {
    name: [_endpoint(line) for line in table.strip().splitlines()]
    for name, table in (("backend", _BACKEND), ("leaderboard", _LEADERBOARD), ("artifacts", _ARTIFACTS))
}

# Definition -> its properties; "X:Type" is a nested definition, "X:[Type]" a list, "X:time" a date-time.
_DEFINITIONS = """
ClientConfig apiUrl applicationUrl pyLibVersions:PyLibVersions multiPartUpload:MultiPartUpload artifacts:ArtifactsConfig sysNameSetByBackend
PyLibVersions minRecommendedVersion minCompatibleVersion maxCompatibleVersion
MultiPartUpload enabled minChunkSize maxChunkSize maxChunkCount maxSinglePartSize
ArtifactsConfig enabled apiVersion
Tokens accessToken refreshToken username
Project id name organizationName projectKey version description visibility
ProjectList entries:[Project] matchingItemCount totalItemCount
Organization id name
Member registeredMemberInfo:MemberInfo serviceAccountInfo:ServiceAccount role
MemberInfo username
WorkspaceMember registeredMemberInfo:MemberInfo role
ServiceAccount id displayName
Experiment id shortId type organizationName projectName projectId trashed
NewExperiment projectIdentifier parentId type cliVersion customId gitInfo:Git key notebookId checkpointId
Git commit:Commit repositoryDirty currentBranch remotes
Commit commitId message authorName authorEmail commitDate:time
BulkResult errors:[BulkError] updatedExperimentIdentifiers
BulkError id error:Error
Error errorDescription errorType
Attributes attributes:[Attribute] id
Attribute name type floatProperties:Float intProperties:Int boolProperties:Bool stringProperties:String datetimeProperties:Datetime fileProperties:File fileSetProperties:FileSet floatSeriesProperties:FloatSeries stringSeriesProperties:StringSeries imageSeriesProperties:ImageSeries stringSetProperties:StringSet gitRefProperties:Git experimentStateProperties:State artifactProperties:Artifact
Float attributeName attributeType value
Int attributeName attributeType value
Bool attributeName attributeType value
String attributeName attributeType value
Datetime attributeName attributeType value:time
State attributeName attributeType value
File attributeName attributeType name ext size
FileSet attributeName attributeType size
FloatSeries attributeName attributeType last lastStep min max average variance config:SeriesConfig
SeriesConfig min max unit
StringSeries attributeName attributeType last lastStep
ImageSeries attributeName attributeType lastStep
StringSet attributeName attributeType values
Artifact attributeName attributeType hash
FloatValues totalItemCount values:[Value]
StringValues totalItemCount values:[Value]
ImageValues totalItemCount
Value timestampMillis step value
Download id downloadUrl
FileEntry name size mtime:time fileType
Upload uploadId errors:[Error]
Uploaded errors:[Error]
Entries matchingItemCount entries
AttributeNames entries:[AttributeName]
AttributeName name type
Checkpoint id
ArtifactVersion artifactHash receivedMetadata size
ArtifactFiles files:[ArtifactFile]
ArtifactFile filePath fileHash type size metadata:[KeyValue]
KeyValue key value
"""


def _reference(name: str) -> dict[str, Any]:
    if name == "time":
        return {"type": "string", "format": "date-time"}
    if name.startswith("["):
        return {"type": "array", "items": _reference(name[1:-1])}
    return {"$ref": f"#/definitions/{name}"}


def _definitions() -> Iterator[tuple[str, dict[str, Any]]]:
    for line in _DEFINITIONS.strip().splitlines():
        name, *words = line.split()
        split = [word.partition(":") for word in words]
        properties = {key: _reference(type) if type else {} for key, _, type in split}
        yield name, {"type": "object", "properties": properties}


def _parameters(endpoint: Endpoint) -> Iterator[dict[str, Any]]:
    for part in endpoint.path.split("{")[1:]:
        yield {"name": part.partition("}")[0], "in": "path", "type": "string", "required": True}
    for name in endpoint.headers:
        yield {"name": name, "in": "header", "type": "string"}
    for name in endpoint.query:
        parameter: dict[str, Any] = {"name": name.rstrip("[]#"), "in": "query", "type": "string"}
        if name.endswith("[]"):
            parameter |= {"type": "array", "items": {"type": "string"}, "collectionFormat": "multi"}
        elif name.endswith("#"):
            parameter["type"] = "integer"
        yield parameter
    if endpoint.body:
        name, _, type = endpoint.body.partition(":")
        yield {"name": name, "in": "body", "schema": _reference(type) if type else {}}


def document(name: str) -> dict[str, Any]:
    """Returns the Swagger document of one of the three parts of the API (a key of ``DOCUMENTS``)."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in DOCUMENTS[name]:
        answer: dict[str, Any] = {"description": ""}
        if endpoint.result:
            is_file = endpoint.result == "file"
            answer["schema"] = {"type": "file"} if is_file else _reference(endpoint.result)
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = {
            "operationId": endpoint.name,
            "tags": ["api"],  # the client looks all operations up under this name
            "parameters": list(_parameters(endpoint)),
            # An error has no schema: it must not be read as what was asked for.
            "responses": {"200": answer, "default": {"description": ""}},
        }
    return {
        "swagger": "2.0",
        "info": {"title": f"segtrail {name}", "version": "1"},
        "consumes": ["application/json"],
        "produces": ["application/json"],
        "paths": paths,
        "definitions": dict(_definitions()),
    }
