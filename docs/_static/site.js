// What is wider than its place is scrolled with the keyboard too.
(() => {
"use strict";
function reachable() {
  for (const one of document.querySelectorAll("article pre, article table, .table-wrapper")) {
    const scrolls = one.scrollWidth > one.clientWidth || one.scrollHeight > one.clientHeight + 1;
    if (scrolls) one.tabIndex = 0; else one.removeAttribute("tabindex");
  }
}
addEventListener("load", reachable);
addEventListener("resize", reachable);
document.addEventListener("toggle", reachable, true);
})();
