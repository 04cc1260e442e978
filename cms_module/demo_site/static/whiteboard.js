/**
 * A sheet that several people draw on. Whoever draws sees that line at once and publishes it
 * in pieces, about 30 a second, with `echo: false`: everybody else gets them.
 *
 * A piece is a line of its own, {color, width, points: [x, y, x, y, …]} on a sheet of 3000 by
 * 2000, so pieces may be lost or come late without spoiling others. A newcomer listens first,
 * then asks the site for the picture so far and for the offset up to which it is complete, and
 * leaves out what was heard twice.
 */
"use strict";

(() => {
  const CHANNEL = "draw:board";
  const SHEET = { width: 3000, height: 2000 };
  const WIDTHS = [10, 26];
  const EVERY_MS = 33;
  /** Pieces on their way at once; on a slow line the next piece gets longer instead. */
  const UNDERWAY = 3;
  const POINTS = 200;

  const canvas = document.getElementById("board");
  const context = canvas.getContext("2d");
  const status = document.getElementById("board-status");
  const plain = status.textContent;
  const thick = document.getElementById("thick");

  /** Everything on the sheet, to draw it anew in another size. */
  let pieces = [];
  /** What arrives while the picture is being fetched; null when it is there. */
  let waiting = [];
  /** Lines of which something is still to be published. */
  const lines = new Set();
  /** The one each pointer is drawing. @type {Map<number, object>} */
  const pointers = new Map();
  /** Pieces published here, with their offsets; Infinity while nobody knows. */
  const mine = new Map();
  let underway = 0;
  let failed = false;

  // Drawing

  function colours() {
    const style = getComputedStyle(document.documentElement);
    return [0, 1, 2, 3, 4].map((number) => style.getPropertyValue(`--pen-${number}`).trim());
  }
  let palette = colours();

  function draw({ color, width, points }) {
    const scale = canvas.width / SHEET.width;
    context.strokeStyle = palette[color] || palette[0];
    // On a small screen a line is still a line.
    context.lineWidth = Math.max((WIDTHS[width] || WIDTHS[0]) * scale, 1.5 * sharpness());
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(points[0] * scale, points[1] * scale);
    // A line to its own beginning: so that a single point is a dot.
    if (points.length === 2) context.lineTo(points[0] * scale, points[1] * scale);
    for (let i = 2; i < points.length; i += 2) context.lineTo(points[i] * scale, points[i + 1] * scale);
    context.stroke();
  }

  function sharpness() {
    return Math.min(window.devicePixelRatio || 1, 2);
  }

  function drawAll() {
    context.clearRect(0, 0, canvas.width, canvas.height);
    pieces.forEach(draw);
  }

  function fit() {
    const width = Math.round(canvas.clientWidth * sharpness());
    if (!width || width === canvas.width) return;
    canvas.width = width;
    canvas.height = Math.round((width * SHEET.height) / SHEET.width);
    drawAll();
  }

  /** What others publish is whatever they like to publish. */
  function isPiece(data) {
    const fits = (value, highest) => Number.isInteger(value) && value >= 0 && value <= highest;
    return Array.isArray(data?.points) && data.points.length >= 2 && data.points.length <= 2 * POINTS
      && data.points.length % 2 === 0 && data.points.every((point) => fits(point, SHEET.width))
      && fits(data.color, 7) && fits(data.width, 2);
  }

  // What others draw

  function take(data, { offset }) {
    if (waiting) {
      waiting.push({ data, offset });
    } else if (data?.clear === true) {
      pieces = [];
      drawAll();
      say(`${String(data.name || "Somebody").slice(0, 40)} has wiped the sheet.`);
    } else if (isPiece(data)) {
      pieces.push(data);
      draw(data);
    }
  }

  let asking = 0;
  async function fetchPicture() {
    asking += 1;
    const turn = asking;
    waiting = waiting || [];
    let picture;
    try {
      picture = await site.load("/whiteboard.json");
    } catch {
      say("The picture cannot be loaded just now.");
    }
    if (turn !== asking) return;
    if (picture) {
      for (const [piece, offset] of mine) if (offset <= picture.offset) mine.delete(piece);
      pieces = [...picture.segments.filter(isPiece), ...mine.keys()];
      drawAll();
    }
    const heard = waiting;
    waiting = null;
    for (const { data, offset } of heard) {
      if (!picture || offset > picture.offset) take(data, { offset });
    }
    canvas.dataset.ready = "yes";
  }

  // What is drawn here

  function place(event) {
    const box = canvas.getBoundingClientRect();
    const clamp = (value, highest) => Math.max(0, Math.min(highest, Math.round(value)));
    return [
      clamp(((event.clientX - box.left) / box.width) * SHEET.width, SHEET.width),
      clamp(((event.clientY - box.top) / box.height) * SHEET.height, SHEET.height),
    ];
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    const color = Number(document.querySelector("input[name=pen]:checked").value);
    const line = { color, width: Number(thick.checked), points: place(event), begun: false, ended: false };
    lines.add(line);
    pointers.set(event.pointerId, line);
    draw(line);
  });

  canvas.addEventListener("pointermove", (event) => {
    const line = pointers.get(event.pointerId);
    if (!line) return;
    const moves = event.getCoalescedEvents?.() || [];
    for (const move of moves.length ? moves : [event]) {
      const [x, y] = place(move);
      const [lastX, lastY] = line.points.slice(-2);
      if (Math.hypot(x - lastX, y - lastY) < 4) continue;
      line.points.push(x, y);
      draw({ ...line, points: [lastX, lastY, x, y] });
    }
  });

  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => {
      const line = pointers.get(event.pointerId);
      if (line) line.ended = true;
      pointers.delete(event.pointerId);
    });
  }

  function flush() {
    for (const line of lines) {
      if (line.points.length > 2 || !line.begun) {
        if (underway >= UNDERWAY) return;
        const points = line.points.slice(0, 2 * POINTS);
        // The next piece begins where this one ends.
        line.points = line.points.slice(points.length - 2);
        line.begun = true;
        publish({ color: line.color, width: line.width, points });
      }
      if (line.ended && line.points.length <= 2) lines.delete(line);
    }
  }
  setInterval(flush, EVERY_MS);

  async function publish(piece) {
    pieces.push(piece);
    mine.set(piece, Infinity);
    underway += 1;
    try {
      const { offset } = await site.push.publish(CHANNEL, piece, { echo: false });
      mine.set(piece, offset);
      if (failed) say(plain);
      failed = false;
    } catch {
      mine.delete(piece);
      failed = true;
      say("The others cannot see this line: there is no connection just now.");
    } finally {
      underway -= 1;
    }
  }

  function say(text) {
    status.textContent = text;
  }

  const clear = document.getElementById("clear");
  clear.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const { ok } = await site.post(clear.action);
      if (!ok) throw new Error("The push server is away.");
    } catch (error) {
      say(`The sheet could not be wiped. ${error.message}`);
    }
  });

  new ResizeObserver(fit).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    palette = colours();
    drawAll();
  });

  site.push.subscribe(CHANNEL, take);
  site.push.on("subscribed", fetchPicture);
  site.push.on("reset", fetchPicture);
  fit();
  fetchPicture();
})();
