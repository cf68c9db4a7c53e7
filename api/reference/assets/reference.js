// What the page can do besides being read. It works without any of this.
"use strict";

const side = document.querySelector(".side");
const links = [...side.querySelectorAll(".contents a")];

// Copy what is to be typed.
if (navigator.clipboard) {
  for (const button of document.querySelectorAll(".copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.closest("figure").querySelector("code").textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
}

// Show in the contents where the reader is.
const targets = new Map(links.map((link) => [document.getElementById(decodeURIComponent(link.hash.slice(1))), link]));
const visible = new Set();
let current;
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) visible[isIntersecting ? "add" : "delete"](target);
  const first = [...targets.keys()].findLast((target) => visible.has(target) && target.getBoundingClientRect().top < innerHeight / 3)
    ?? [...targets.keys()].find((target) => visible.has(target));
  const link = targets.get(first);
  if (!link || link === current) return;
  current?.removeAttribute("aria-current");
  current = link;
  current.setAttribute("aria-current", "location");
  const { top, bottom } = current.getBoundingClientRect();
  if (top < 60 || bottom > innerHeight - 30) side.scrollTop += top - innerHeight / 2;
}, { rootMargin: "0px 0px -55% 0px" });
for (const target of targets.keys()) watcher.observe(target);

// Find an operation by what it is called or where it is.
const filter = side.querySelector(".filter");
const input = filter.querySelector("input");
filter.hidden = false;
const paths = new Map(links.map((link) => [link, `${link.textContent} ${document.getElementById(decodeURIComponent(link.hash.slice(1)))?.querySelector(".route")?.textContent ?? ""}`.toLowerCase()]));
const apply = () => {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  let found = 0;
  for (const link of links) {
    const shown = words.every((word) => paths.get(link).includes(word));
    link.parentElement.hidden = !shown;
    if (shown) found++;
  }
  for (const heading of side.querySelectorAll("h2")) heading.hidden = !heading.nextElementSibling.querySelector("li:not([hidden])");
  side.querySelector(".none").hidden = found > 0;
};
input.addEventListener("input", apply);
input.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { input.value = ""; apply(); input.blur(); }
  if (event.key === "Enter") links.find((link) => !link.parentElement.hidden)?.click();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
  event.preventDefault();
  input.focus();
});

// On a narrow screen, choosing closes the contents.
const menu = document.querySelector(".menu");
menu.addEventListener("click", (event) => { if (event.target.closest("a")) menu.open = false; });
