const plot = scales(find(".area")), [step] = all("[type=range]"), play = find("button.play");
const {states, observations, bands, smoothed} = data;
const names = ["filter", "partial", "smoother"], words = ["filter", "partial q", "smoother"];

// Mean and half-width of a band at each step of what was revealed; the smoother looks back anew.
function band(name, revealed) {
  return name === "smoother" ? smoothed[revealed - 1] : [bands[name][0].slice(0, revealed), bands[name][1].slice(0, revealed)];
}

function show() {
  const revealed = Number(step.value), missed = {};
  const series = (values) => values.slice(0, revealed).map((value, i) => [i + 1, value]);
  names.forEach((name) => {
    const [middle, half] = band(name, revealed);
    const edge = (sign) => middle.map((value, i) => [i + 1, value + sign * half[i]]);
    const shown = find(`input[value="${name}"]`).checked;
    key(name).setAttribute("d", shown ? `${line(plot, [...edge(-1), ...edge(1).reverse()])}z` : "");
    const at = middle.map((value, i) => Math.abs(states[i] - value) > half[i]);
    missed[name] = at.filter(Boolean).length;
    meter(name, 100 * missed[name] / revealed, `${missed[name]} of ${revealed}`, 5);
    if (name === "partial") key("missed").setAttribute("d", dots(plot, series(states).filter((_, i) => at[i] && shown)));
  });
  key("states").setAttribute("d", line(plot, series(states)));
  key("observations").setAttribute("d", dots(plot, series(observations)));
  Object.assign(root.dataset, missed);
  tell(step, `${revealed} of ${states.length}`);
  say(`After ${revealed} ${revealed === 1 ? "step" : "steps"} the state has left the 95 % band of the `
    + names.map((name, i) => `${words[i]} ${missed[name]} ${missed[name] === 1 ? "time" : "times"}`).join(", of the ")
    + `. A calibrated band misses 5 % of all steps; over all such sequences the partial q misses ${data.expected} %.`);
}

function go(to) {
  step.value = to;
  show();
}
step.addEventListener("input", () => { stop(); show(); });
all("[type=checkbox]").forEach((input) => input.addEventListener("change", show));
find("button.next").addEventListener("click", () => { stop(); go(Number(step.value) + 1); });
play.addEventListener("click", () => {
  if (Number(step.value) === states.length) go(1);
  let beat = 0;
  move(() => {
    beat += 1;
    if (beat % 8 === 0) go(Number(step.value) + 1);
    return Number(step.value) < states.length;
  });
});
step.value = data.start;
show();
