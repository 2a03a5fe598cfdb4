// What all widgets share. `root` is the element of the widget, `data` what Python gave it.
const find = (selector) => root.querySelector(selector);
const all = (selector) => Array.from(root.querySelectorAll(selector));
const key = (name) => find(`[data-key="${name}"]`);
const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
all("[data-live]").forEach((part) => { part.hidden = false; });

// Numbers with a true minus, as the axes write them.
const fixed = (value, digits) => value.toFixed(digits).replace("-", "−");

// The scales of a plot: `x` and `y` lead from values to places inside of its area, `at` from the
// window to values, and `share` from values to parts of the picture's width and height.
function scales(area) {
  const [across, up, size] = ["across", "up", "size"].map((name) => area.dataset[name].split(" ").map(Number));
  const picture = area.ownerSVGElement, [, , width, height] = picture.getAttribute("viewBox").split(" ").map(Number);
  const left = Number(area.getAttribute("x")), top = Number(area.getAttribute("y")) + 2;
  const x = (value) => (value - across[0]) / (across[1] - across[0]) * size[0];
  const y = (value) => Math.max(-1, Math.min(2, (up[1] - value) / (up[1] - up[0]))) * size[1];
  return {
    across, up, x, y,
    share: (a, b) => [(left + x(a)) / width, (top + y(b)) / height],
    at: (event) => {
      const box = picture.getBoundingClientRect();
      const a = (event.clientX - box.left) / box.width * width - left;
      const b = (event.clientY - box.top) / box.height * height - top;
      return [across[0] + a / size[0] * (across[1] - across[0]), up[1] - b / size[1] * (up[1] - up[0])];
    },
  };
}

// The path of a line through points [x, y], of a function over the whole plot, of dots.
function line(plot, points) {
  return points.length ? "M" + points.map(([x, y]) => `${plot.x(x).toFixed(1)} ${plot.y(y).toFixed(1)}`).join("L") : "";
}
function curve(plot, f, count = 400) {
  const [low, high] = plot.across;
  return line(plot, Array.from({length: count + 1}, (_, i) => low + (high - low) * i / count).map((x) => [x, f(x)]));
}
function dots(plot, points) {
  return points.map(([x, y]) => `M${plot.x(x).toFixed(1)} ${plot.y(y).toFixed(1)}h0`).join("");
}

// Shows a range's value beside its label, and to a screen reader.
function tell(input, words) {
  find(`output[for="${input.id}"]`).textContent = words;
  input.setAttribute("aria-valuetext", words);
}

// Sets a live bar; `mark` is a line across it, undefined for none.
function meter(name, value, words, mark) {
  const row = find(`[data-meter="${name}"]`), top = Number(find(".meters").dataset.top);
  const [bar, line] = [row.querySelector("i"), row.querySelector("b")];
  bar.style.width = `${Math.min(100, 100 * value / top)}%`;
  row.querySelector("output").textContent = (value > top ? "› " : "") + words;
  line.hidden = mark === undefined;
  if (mark !== undefined) line.style.left = `${Math.min(100, 100 * mark / top)}%`;
}

// Says in words what is shown, once it stands still, so that nobody is talked over.
let waiting = 0;
function say(words) {
  clearTimeout(waiting);
  waiting = setTimeout(() => { find(".state").textContent = words; }, 150);
}

// Runs `next` in steps until it returns false; whoever wants less motion sees the end only.
let moving = 0;
function stop() { clearTimeout(moving); }
function move(next) {
  stop();
  if (still) { while (next()) { /* to the end */ } return; }
  moving = setTimeout(() => { if (next()) move(next); }, 16);
}
