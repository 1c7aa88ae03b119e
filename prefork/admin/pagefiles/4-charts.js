// Charts: small, drawn by hand, the newest at the right edge. A gap in the polls is a gap in the line.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 100;
const GAP_S = 3.5;
const SPANS_S = [60, 120, CHART_S]; // what a chart shows, the smallest that holds all it has

class Chart {
  // `lines`: [{ name, unit, area }], drawn in this order; `log`: a logarithmic scale, for what spans orders of magnitude.
  constructor(title, lines, { log = false, text = count, least = 1, base = 1000 } = {}) {
    Object.assign(this, { title, lines, log, text, least, base });
    this.parts = made("chart");
    setText(this.parts.title, title);
    this.pointer = null; // where in the plot the pointer is, from 0 to 1
    this.parts.plot.addEventListener("pointermove", (event) => {
      this.pointer = event.offsetX / this.parts.plot.clientWidth;
      this.showReadout();
    });
    this.parts.plot.addEventListener("pointerleave", () => {
      this.pointer = null;
      this.showReadout();
    });
    this.paths = lines.map((line) => {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", `${line.area ? "area" : "stroke"} ${line.name}`);
      this.parts.svg.append(path);
      return path;
    });
    this.figures = new List(this.parts.figures, "figure", (parts, figure) => {
      setText(parts.value, figure.text);
      setText(parts.unit, figure.unit);
      setAttribute(parts.key, "class", `stroke ${figure.name ?? "none"}`);
      setClass(parts.node, "alarm", Boolean(figure.alarm));
      setClass(parts.node, "minor", Boolean(figure.minor));
    });
  }

  // `figures`: [{ text, unit, name?, alarm?, minor? }], the headline.
  show(points, now, figures) {
    this.figures.show(figures, (figure) => figure.unit);
    const values = points.flatMap((point) => this.lines.map((line) => point[line.name])).filter(known);
    const scale = this.log ? logScale(values) : linearScale(values, this.least, this.base);
    const span_s = SPANS_S.find((each) => now - points[0].at <= each) ?? CHART_S;
    this.lines.forEach((line, i) => setAttribute(this.paths[i], "d", drawn(points, now, span_s, line, scale)));
    setText(this.parts.scale, values.length ? this.text(scale.top) : "");
    setText(this.parts.span, longDuration(span_s));
    Object.assign(this, { points, now, span_s });
    this.showReadout();
    const spoken = figures.map((figure) => `${figure.text} ${figure.unit}`).join(", ");
    setAttribute(this.parts.svg, "aria-label", `${this.title}: ${spoken}`);
  }

  // Under the pointer: what was at that time.
  showReadout() {
    const { hair, readout } = this.parts;
    const ago_s = this.pointer === null ? null : (1 - this.pointer) * this.span_s;
    const point = ago_s === null ? undefined : this.points?.find((each) => Math.abs(this.now - each.at - ago_s) <= GAP_S / 2);
    setHidden(hair, !point);
    setHidden(readout, !point);
    if (!point) return;
    const said = this.lines.map((line) => `${this.text(point[line.name])} ${line.unit ?? line.name}`);
    setText(readout, `${ago(this.now - point.at)}: ${said.join(", ")}`);
    hair.style.setProperty("left", `${this.pointer * 100}%`);
  }
}

function linearScale(values, least, base) {
  const most = Math.max(least, ...values);
  const unit = base ** Math.floor(Math.log(most) / Math.log(base));
  const top = Math.min(niceTop(most / unit), base) * unit;
  return { top, y: (value) => HEIGHT - (value / top) * HEIGHT };
}

function logScale(values) {
  const low = Math.floor(Math.log10(Math.max(1e-6, Math.min(...values, 0.01))));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...values, 0.01)) - 1e-9));
  return {
    top: 10 ** high,
    y: (value) => HEIGHT - ((Math.log10(Math.max(value, 10 ** low)) - low) / (high - low)) * HEIGHT,
  };
}

// The next of 1, 2, 5, 10, 20, … so that the scale seldom jumps.
function niceTop(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((step) => step * power >= value * 0.9999);
}

function drawn(points, now, span_s, line, scale) {
  const runs = [];
  let last = null;
  for (const point of points) {
    const value = point[line.name];
    if (!known(value)) {
      last = null;
      continue;
    }
    if (!last || point.at - last.at > GAP_S) runs.push([]);
    const x = WIDTH * (1 - (now - point.at) / span_s);
    runs.at(-1).push([x.toFixed(1), scale.y(value).toFixed(1)]);
    last = point;
  }
  return runs
    .map((run) => {
      // A single point would be invisible: make it as wide as a poll.
      if (run.length === 1) run.push([(Number(run[0][0]) + WIDTH / span_s).toFixed(1), run[0][1]]);
      const path = run.map(([x, y]) => `${x} ${y}`).join("L");
      return line.area ? `M${run[0][0]} ${HEIGHT}L${path}L${run.at(-1)[0]} ${HEIGHT}Z` : `M${path}`;
    })
    .join("");
}
