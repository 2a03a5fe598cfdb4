// Two equally likely full posteriors N(-m, s^2) and N(m, s^2): m is half the distance.
const plot = scales(find(".area")), [distance, width] = all("[type=range]"), values = all("dd");
function integral(f, reach) {
  const h = 2 * reach / 4000;
  let sum = 0;
  for (let i = 0; i <= 4000; i++) sum += f(-reach + i * h);
  return sum * h;
}
// KL(N(a, b^2) || mixture) up to a constant, by quadrature.
function cost(a, b, m, s) {
  const h = 0.06;
  let sum = 0;
  for (let e = -7.2; e < 7.23; e += h) {
    const z = a + b * e, u = -0.5 * ((z - m) / s) ** 2, v = -0.5 * ((z + m) / s) ** 2, top = Math.max(u, v);
    sum -= h * normal(e, 0, 1) * (top + Math.log(0.5 * (Math.exp(u - top) + Math.exp(v - top))) - Math.log(s));
  }
  return sum - Math.log(b);
}
// The mode-seeking Gaussian, from a search over mean and width; `moves` is 0 to hold the mean.
function seek(a, b, m, s, moves) {
  let step = 0.5, now = cost(a, b, m, s);
  while (step > 1e-6) {
    let better = false;
    for (const [along, wider] of [[step * moves, 0], [-step * moves, 0], [0, step], [0, -step]]) {
      const x = a + along * b, y = b * Math.exp(wider), trial = cost(x, y, m, s);
      if (trial < now - 1e-12) { [a, b, now, better] = [x, y, trial, true]; }
    }
    if (!better) step /= 2;
  }
  return [a, b, now];
}
function numbers(m, s, sd, mix) {
  const reach = m + 9 * s, full = 0.5 * Math.log(2 * Math.PI * Math.E * s * s);
  const entropy = integral((z) => { const p = mix(z); return p > 0 ? -p * Math.log(p) : 0; }, reach);
  return [integral((z) => Math.min(normal(z, m, s), normal(z, -m, s)), reach), s, sd,
    Math.max(0, entropy - full), m * m / (2 * s * s)];
}

function show() {
  const m = Number(distance.value) / 2, s = Number(width.value), sd = Math.sqrt(s * s + m * m);
  const mix = (z) => 0.5 * (normal(z, m, s) + normal(z, -m, s));
  const wide = seek(0, sd, m, s, 0), narrow = seek(-m, s, m, s, 1);
  const [mean, spread] = narrow[2] < wide[2] - 1e-9 ? narrow : wide;
  const curves = {
    posterior_a: (z) => normal(z, -m, s), posterior_b: (z) => normal(z, m, s), marginal: mix,
    moment_matched: (z) => normal(z, 0, sd), mode_seeking: (z) => normal(z, mean, spread),
    shared: (z) => normal(z, 0, s),
  };
  // The height of the plot is that of the highest curve: widths would leave the picture otherwise.
  const peak = normal(0, 0, s);
  Object.entries(curves).forEach(([name, f]) => key(name).setAttribute("d", curve(plot, (z) => f(z) / peak, 800)));
  const found = numbers(m, s, sd, mix);
  values.forEach((value, i) => { value.textContent = found[i].toFixed(found[i] < 100 ? 3 : 1); });
  tell(distance, (2 * m).toFixed(1));
  tell(width, s.toFixed(2));
  Object.assign(root.dataset, {mean, spread});
  say(`Two full posteriors with means ${fixed(-m, 2)} and ${fixed(m, 2)} and width ${s.toFixed(2)}. The shared `
    + `posterior is centred at 0 with width ${s.toFixed(2)}; the mixture has width ${sd.toFixed(2)}; `
    + `the mode-seeking Gaussian has mean ${fixed(mean, 2)} and width ${spread.toFixed(2)}; the conditioning gap `
    + `is ${found[4].toFixed(2)} nats.`);
}
[distance, width].forEach((range) => range.addEventListener("input", show));
show();
