// Gaussians in closed form: the density, KL(N(m, s^2) || N(n, t^2)), and two full posteriors.
function normal(z, m, s) { return Math.exp(-0.5 * ((z - m) / s) ** 2) / (s * Math.sqrt(2 * Math.PI)); }
function logNormal(z, m, s) { return -0.5 * ((z - m) / s) ** 2 - Math.log(s) - 0.5 * Math.log(2 * Math.PI); }
function divergence(m, s, n, t) { return Math.log(t / s) + (s * s + (m - n) ** 2) / (2 * t * t) - 0.5; }
function average(world, f) {
  return world.probs.reduce((sum, w, i) => sum + w * f(world.locs[i], world.scales[i]), 0);
}

// What q = N(mean, sd^2) pays for each value of the bit, and on average.
function costs(world, q, forward) {
  const cost = (m, s) => forward ? divergence(m, s, q.mean, q.sd) : divergence(q.mean, q.sd, m, s);
  return [cost(world.locs[0], world.scales[0]), cost(world.locs[1], world.scales[1]), average(world, cost)];
}

// One step downhill on the average in mean and ln sd, each scaled by its curvature where that is
// large, so that no step is too far. Returns how far it went.
function descend(world, q, forward, rate) {
  let mean, ratio;  // the slope in ln sd is the ratio of two variances minus one
  if (forward) {
    mean = q.mean - average(world, (m) => m);
    ratio = average(world, (m, s) => s * s + (m - q.mean) ** 2) / q.sd ** 2;
    q.sd *= Math.exp(rate * (ratio - 1) / Math.max(1, ratio));
  } else {
    const precision = average(world, (m, s) => 1 / (s * s));
    mean = average(world, (m, s) => (q.mean - m) / (s * s)) / precision;
    ratio = precision * q.sd ** 2;
    q.sd *= Math.exp(rate * (1 - ratio) / Math.max(1, ratio));
  }
  q.mean -= rate * mean;
  return rate * (Math.abs(mean) + Math.abs(ratio - 1));
}
