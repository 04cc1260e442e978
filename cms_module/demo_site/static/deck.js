/**
 * An ordinary slideshow: buttons, arrow keys, swipes. It knows nothing of other people.
 *
 * `deck.show(page)` shows a page; `deck.onturn(page)` is called when whoever sits here turns it.
 */
"use strict";

const { push: server } = document.querySelector("meta[name=site]").dataset;
/** Where the channel stood when the site looked up the first slide: later turns will come. */
const { since } = document.getElementById("deck").dataset;

const deck = (() => {
  const stage = document.getElementById("deck");
  const slides = [...stage.querySelectorAll(".slide")];
  const counter = document.getElementById("page");
  const back = document.getElementById("back");
  const next = document.getElementById("next");
  let current = 1;

  const shown = {
    onturn: (/** @type {number} */ page) => page,

    show(page) {
      if (!Number.isInteger(page) || page < 1 || page > slides.length) return;
      current = page;
      slides.forEach((slide, index) => slide.classList.toggle("current", index === page - 1));
      counter.textContent = `${page} of ${slides.length}`;
      back.disabled = page === 1;
      next.disabled = page === slides.length;
    },
  };

  function turn(step) {
    const page = current + step;
    if (page < 1 || page > slides.length) return;
    shown.show(page);
    shown.onturn(page);
  }

  back.addEventListener("click", () => turn(-1));
  next.addEventListener("click", () => turn(1));
  stage.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") turn(-1);
    if (event.key === "ArrowRight" || event.key === " ") {
      event.preventDefault();
      turn(1);
    }
  });

  let start = null;
  stage.addEventListener("pointerdown", (event) => (start = event.clientX));
  stage.addEventListener("pointerup", (event) => {
    if (start !== null && Math.abs(event.clientX - start) > 50) turn(event.clientX < start ? 1 : -1);
    start = null;
  });

  shown.show(Number(stage.dataset.first));
  return shown;
})();
