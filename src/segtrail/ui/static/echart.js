// @ts-check
// ECharts, loaded when a page first needs it; text in tooltips is drawn, never parsed as HTML.

const css = (/** @type {string} */ name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/**
 * @param {HTMLElement} root @param {(theme: {text: string, muted: string, line: string, panel: string, axis: any}) => any} option
 * @returns {Promise<any>} the chart; it follows the size of its element
 */
export async function echart(root, option) {
  const echarts = await import("./vendor/echarts.js");
  const [text, muted, line, panel] = ["--text", "--muted", "--line", "--panel"].map(css);
  const axis = {
    axisLabel: { color: muted, fontSize: 11 }, nameTextStyle: { color: muted }, axisLine: { lineStyle: { color: line } },
    splitLine: { lineStyle: { color: line } }, axisTick: { lineStyle: { color: line } },
  };
  const chart = echarts.init(root, null, { renderer: "canvas" });
  const made = option({ text, muted, line, panel, axis });
  chart.setOption({
    animation: false, textStyle: { color: text }, ...made,
    tooltip: made.tooltip && { backgroundColor: css("--raised"), borderColor: css("--line-strong"), textStyle: { color: text, fontSize: 12 }, confine: true, ...made.tooltip },
  });
  const watch = new ResizeObserver(() => { if (root.isConnected) chart.resize(); });
  watch.observe(root);
  const dispose = chart.dispose.bind(chart);
  chart.dispose = () => { watch.disconnect(); dispose(); };
  return chart;
}
