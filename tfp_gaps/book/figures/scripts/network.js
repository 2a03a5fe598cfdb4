const {world, best} = data, q = {...data.start};
const plot = scales(find(".area")), handle = find(".handle"), direction = all("[type=radio]");
const [mean, sd] = all("[type=range]");
let forward = false;

function show() {
  const colour = forward ? data.colours[1] : data.colours[0];
  const least = forward ? best.forward : best.reverse;
  const [first, second, both] = costs(world, q, forward);
  const density = (z) => normal(z, q.mean, q.sd), line = curve(plot, density);
  key("q").setAttribute("d", line);
  key("q").style.stroke = colour;
  key("q-ground").setAttribute("d", `${line}V${plot.y(0)}H0z`);
  key("q-ground").style.fill = colour;
  handle.style.color = colour;
  place();
  const names = forward ? ["KL(p₀ ‖ q)", "KL(p₁ ‖ q)"] : ["KL(q ‖ p₀)", "KL(q ‖ p₁)"];
  [["first", first], ["second", second], ["both", both]].forEach(([name, value], i) => {
    meter(name, value, `${value.toFixed(2)} nats`, i === 2 ? least.cost : undefined);
  });
  find('[data-meter="both"] i').style.background = colour;
  Object.assign(root.dataset, {mean: q.mean, sd: q.sd, first, second, both});
  mean.value = q.mean;
  sd.value = q.sd;
  tell(mean, fixed(q.mean, 2));
  tell(sd, fixed(q.sd, 2));
  const above = both - least.cost;
  say(`q has mean ${fixed(q.mean, 2)} and width ${fixed(q.sd, 2)}. ${names[0]} is ${first.toFixed(2)} nats if the `
    + `bit is 0, ${names[1]} is ${second.toFixed(2)} if it is 1, ${both.toFixed(2)} on average: `
    + (above < 0.005 ? least.words : `${above.toFixed(2)} more than the least possible.`));
}

// The handle is the peak of q: sideways moves the mean, and a higher peak is narrower.
function place() {
  const [left, top] = plot.share(q.mean, Math.min(normal(0, 0, q.sd), plot.up[1]));
  handle.style.left = `${100 * left}%`;
  handle.style.top = `${100 * top}%`;
  handle.setAttribute("aria-valuenow", q.mean.toFixed(2));
  handle.setAttribute("aria-valuetext", `mean ${fixed(q.mean, 2)}, width ${fixed(q.sd, 2)}`);
}

function become(newMean, newSd) {
  stop();
  q.mean = Math.max(plot.across[0], Math.min(plot.across[1], newMean));
  q.sd = Math.max(Number(sd.min), Math.min(Number(sd.max), newSd));
  show();
}

handle.addEventListener("pointerdown", (event) => {
  handle.setPointerCapture(event.pointerId);
  handle.focus();
  event.preventDefault();
});
handle.addEventListener("pointermove", (event) => {
  if (!handle.hasPointerCapture(event.pointerId)) return;
  const [z, height] = plot.at(event);
  become(z, 1 / (Math.max(height, 1e-3) * Math.sqrt(2 * Math.PI)));
});
handle.addEventListener("keydown", (event) => {
  const moves = {ArrowLeft: [-0.1, 1], ArrowRight: [0.1, 1], ArrowUp: [0, 1 / 1.05], ArrowDown: [0, 1.05]};
  if (!(event.key in moves)) return;
  event.preventDefault();
  const [step, factor] = moves[event.key];
  become(q.mean + step, q.sd * factor);
});
mean.addEventListener("input", () => become(Number(mean.value), q.sd));
sd.addEventListener("input", () => become(q.mean, Number(sd.value)));
direction.forEach((input) => input.addEventListener("change", () => {
  forward = input.value === "forward";
  stop();
  show();
}));
find("button.descend").addEventListener("click", () => move(() => {
  const far = descend(world, q, forward, 0.1);
  show();
  return far > 1e-6;
}));
show();
