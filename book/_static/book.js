// On every page: a link into a fold opens it, and links to terms and references show what they say.
(function () {
  "use strict";

  // Verdicts are folded; a badge in the text leads into the fold.
  function unfold() {
    var target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    var wasClosed = false;
    for (var parent = target; parent; parent = parent.parentElement) {
      if (parent.tagName === "DETAILS" && !parent.open) {
        parent.open = true;
        wasClosed = true;
      }
    }
    if (wasClosed) { target.scrollIntoView(); }
  }
  addEventListener("hashchange", unfold);
  unfold();

  // Previews, by pointer and by keyboard: they wait a moment, stay while the pointer is on them,
  // and go with Escape.
  var tip = null, owner = null, timer = 0;

  function hide() {
    clearTimeout(timer);
    if (owner) { owner.removeAttribute("aria-describedby"); }
    if (tip) { tip.hidden = true; }
    owner = null;
  }

  function make() {
    tip = document.createElement("div");
    tip.id = "book-preview";
    tip.className = "math";
    tip.setAttribute("role", "tooltip");
    tip.addEventListener("mouseenter", function () { clearTimeout(timer); });
    tip.addEventListener("mouseleave", later(hide));
    document.body.append(tip);
  }

  function later(action) {
    return function () { clearTimeout(timer); timer = setTimeout(action, 300); };
  }

  function place() {
    var link = owner.getBoundingClientRect();
    var left = Math.min(link.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
    tip.style.left = Math.max(8, left) + scrollX + "px";
    var below = link.bottom + 6;
    var fits = below + tip.offsetHeight < innerHeight || link.top < tip.offsetHeight + 6;
    tip.style.top = (fits ? below : link.top - tip.offsetHeight - 6) + scrollY + "px";
  }

  function show(link) {
    hide();
    if (!tip) { make(); }
    owner = link;
    tip.textContent = link.dataset.preview;
    tip.hidden = false;
    link.setAttribute("aria-describedby", tip.id);
    place();
    if (window.MathJax && MathJax.typesetPromise) {
      MathJax.typesetPromise([tip]).then(function () { if (owner === link) { place(); } });
    }
  }

  document.querySelectorAll('a[href^="bibliography.html#"][title]').forEach(function (link) {
    link.dataset.preview = link.title;
    link.removeAttribute("title");
  });
  document.querySelectorAll("a[data-preview]").forEach(function (link) {
    link.addEventListener("mouseenter", later(function () { show(link); }));
    link.addEventListener("focus", function () { show(link); });
    link.addEventListener("mouseleave", later(hide));
    link.addEventListener("blur", hide);
  });
  addEventListener("keydown", function (event) { if (event.key === "Escape") { hide(); } });
})();
