// One picture and its numbers for each joint position of the ranges, the last one running fastest.
const ranges = all("[type=range]"), values = all("dd");
function show() {
  const at = ranges.reduce((place, range, i) => place * data.ticks[i].length + Number(range.value), 0);
  const [drawn, shown] = data.frames[at];
  ranges.forEach((range, i) => tell(range, data.ticks[i][range.value]));
  find("[data-picture]").innerHTML = drawn;
  values.forEach((value, i) => { value.textContent = shown[i]; });
  say(find("[data-picture] > svg").getAttribute("aria-label"));
}
ranges.forEach((range) => range.addEventListener("input", show));
show();
