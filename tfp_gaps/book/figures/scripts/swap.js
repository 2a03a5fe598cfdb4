const {world, scale} = data, [densities, logs] = all(".area").map(scales);
const [probe] = all("[type=range]"), choices = all("[type=radio]");

function show() {
  const z = Number(probe.value), logarithms = choices[1].checked;
  const each = [0, 1].map((i) => logNormal(z, world.locs[i], world.scales[i]));
  const mixture = average(world, (m, s) => normal(z, m, s));
  const meanLog = average(world, (m, s) => logNormal(z, m, s));
  all("[data-average]").forEach((part) => { part.style.display = (part.dataset.average === "log") === logarithms ? "" : "none"; });
  const shown = logarithms ? Math.exp(meanLog + scale) : mixture;
  [[densities, "above", [...each.map(Math.exp), shown]],
   [logs, "below", [...each, logarithms ? meanLog : Math.log(mixture)]]].forEach(([plot, name, values]) => {
    key(`probe-${name}`).setAttribute("d", line(plot, [[z, plot.up[0]], [z, plot.up[1]]]));
    values.forEach((value, i) => key(`${name}-${i}`).setAttribute("d", dots(plot, [[z, value]])));
    key(`${name}-2`).style.stroke = data.colours[logarithms ? 1 : 0];
  });
  Object.assign(root.dataset, {mixture, meanLog, shown});
  tell(probe, fixed(z, 2));
  const [first, second] = each.map((value) => fixed(value, 1));
  say(`At z = ${fixed(z, 2)} the two log densities are ${first} and ${second}. ` + (logarithms
    ? `The average of ln p is ${fixed(meanLog, 1)}, half-way between them: whoever calls z impossible has a veto. `
      + `Raised by ${scale.toFixed(2)} nats, the conditioning gap, it is a density: the shared posterior.`
    : `The average of p has the logarithm ${fixed(Math.log(mixture), 1)}, near the larger of them: one that calls z `
      + "likely is enough. It is the right answer without the bit."));
}
[probe, ...choices].forEach((input) => input.addEventListener("input", show));
show();
