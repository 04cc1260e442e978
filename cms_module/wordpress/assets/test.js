/**
 * The last line of "Test connection": whether this browser hears what the site publishes.
 */
"use strict";

(async () => {
  const LIMIT_MS = 15000;
  const words = window.pushServerTest;
  /** @type {any} */
  const row = document.getElementById("push-server-check-browser");

  /** @param {"ok" | "error"} status @param {string} message */
  function write(status, message) {
    row.dataset.status = status;
    row.cells[0].textContent = words.signs[status];
    row.cells[2].textContent = message;
  }

  const begin = performance.now();
  let line;
  try {
    line = await window.pushServer.ready;
    const late = new Promise((_, fail) => {
      setTimeout(() => fail(new Error(line.info()?.lastError?.message || "")), LIMIT_MS);
    });
    const heard = window.pushServer.ping(Math.random().toString(36).slice(2));
    const { transport } = await Promise.race([heard, late]);
    const time = String(Math.round(performance.now() - begin));
    write("ok", words.heard.replace("%1$s", time).replace("%2$s", transport));
  } catch (error) {
    write("error", line?.push ? `${words.nothing} ${error.message}` : words.no_token);
  }
})();
