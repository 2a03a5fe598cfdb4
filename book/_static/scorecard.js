// Search, filters and sorting of the scorecard. The table is whole without this script: it only
// hides and reorders rows, by what their attributes say. A link as scorecard.html?verdict=different
// begins with a filter, one as scorecard.html#C20 shows that row with its criteria.
(function () {
  "use strict";
  var form = document.querySelector(".scorecard-controls");
  var table = document.querySelector(".scorecard-table");
  if (!form || !table) { return; }
  var body = table.tBodies[0];
  var rows = Array.from(body.rows);
  var status = form.querySelector("[role=status]");
  var filters = ["verdict", "chapter", "source"];
  var buttons = [];

  function fits(row) {
    var words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    var text = row.textContent.toLowerCase();
    return words.every(function (word) { return text.includes(word); }) &&
      filters.every(function (name) {
        var wanted = form.elements[name].value;
        var found = row.dataset[name];
        return !wanted || (name === "source" ? found.split(" ").includes(wanted) : found === wanted);
      });
  }

  function before(key) {
    return function (one, other) {
      var byPlace = Number(one.dataset.place) - Number(other.dataset.place);
      if (key === "place") { return byPlace; }
      var a = key === "id" ? one.id : one.dataset[key];
      var b = key === "id" ? other.id : other.dataset[key];
      return a < b ? -1 : a > b ? 1 : byPlace;
    };
  }

  function show() {
    var shown = 0;
    rows.sort(before(form.elements.sort.value)).forEach(function (row) {
      row.hidden = !fits(row);
      shown += row.hidden ? 0 : 1;
      body.appendChild(row);
    });
    status.textContent = shown + " of " + rows.length + " claims shown";
    buttons.forEach(function (button) {
      var isPressed = button.dataset.verdict === form.elements.verdict.value;
      button.setAttribute("aria-pressed", String(isPressed));
    });
  }

  // The totals become buttons; a second click takes the filter back.
  document.querySelectorAll(".scorecard-totals li").forEach(function (item) {
    var button = document.createElement("button");
    button.type = "button";
    button.dataset.verdict = item.dataset.verdict;
    button.append.apply(button, Array.from(item.childNodes));
    item.append(button);
    buttons.push(button);
    button.addEventListener("click", function () {
      var choice = form.elements.verdict;
      choice.value = choice.value === button.dataset.verdict ? "" : button.dataset.verdict;
      show();
    });
  });

  // The row that the address names is shown, whatever the filters say.
  function follow() {
    var row = rows.find(function (each) { return "#" + each.id === location.hash; });
    if (!row) { return; }
    if (row.hidden) { form.reset(); show(); }
    row.querySelector("details").open = true;
    row.scrollIntoView();
  }

  form.addEventListener("input", show);
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  form.addEventListener("reset", function () { setTimeout(show); });
  addEventListener("hashchange", follow);
  new URLSearchParams(location.search).forEach(function (value, name) {
    if (form.elements[name] && (filters.includes(name) || name === "words")) {
      form.elements[name].value = value;
    }
  });
  form.hidden = false;
  show();
  follow();
})();
