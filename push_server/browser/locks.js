/**
 * Who may hold something that only one frame of a browser can hold.
 *
 * Rules that hold in this file:
 * - A lock tells its frame when it has it (`held`) and when another has taken it (`lost`); then
 *   it waits in line again, until `release`. A frame whose document ends has released it.
 * - `seize` takes it from a holder that does not answer any more: asleep, or dead without a word.
 * - Where the user blocks storage, or it is full, only the attempt tells: the frame is `denied`.
 * - No timer is relied upon to be exact: those of hidden frames are slowed to one a minute.
 *
 * Used by share.js. Needs nothing.
 */
"use strict";

globalThis.PushLocks = (() => {
  /** Longer than a hidden frame, whose timers come once a minute, needs to renew its lease. */
  const TERM = 90000;
  const RENEW = 20000;
  /** Two frames may write at the same time, and see each other's word only a little later. */
  const SETTLE = 100;

  /** @typedef {{held: () => void, lost: () => void, denied: () => void}} Holder */

  /** The browser's own lock; it exists in secure contexts only. */
  class WebLock {
    static get usable() {
      return typeof navigator.locks?.request === "function";
    }

    /** @param {string} name @param {Holder} holder */
    constructor(name, holder) {
      this.name = name;
      this.holder = holder;
      this.abort = new AbortController();
      /** @type {(() => void) | null} gives back what is held */
      this.finish = null;
      this.line({ signal: this.abort.signal });
    }

    /** @param {LockOptions} options */
    line(options) {
      const hold = () => new Promise((done) => {
        if (this.abort.signal.aborted) {
          done(undefined);
          return;
        }
        this.finish = () => done(undefined);
        this.holder.held();
      });
      navigator.locks.request(this.name, options, hold).catch(() => {
        if (this.abort.signal.aborted) return;
        if (!this.finish) {
          this.holder.denied();
          return;
        }
        this.finish = null;
        this.holder.lost();
        this.line({ signal: this.abort.signal });
      });
    }

    seize() {
      if (!this.finish) this.line({ steal: true });
    }

    release() {
      this.abort.abort();
      this.finish?.();
    }
  }

  /**
   * A word in localStorage: who has it, and until when. Writing it and reading it are two steps,
   * so a writer waits whether the word stays.
   */
  class Lease {
    static get usable() {
      try {
        return typeof localStorage.getItem("push") !== "undefined";
      } catch {
        return false;
      }
    }

    /** @param {string} name @param {Holder} holder */
    constructor(name, holder) {
      this.key = name;
      this.holder = holder;
      this.id = `${Math.random()}`;
      this.has = false;
      this.over = false;
      /** @type {any} */
      this.timer = 0;
      /** @param {StorageEvent} event of another frame */
      this.onStorage = ({ key }) => {
        if (key === this.key) this.look();
      };
      window.addEventListener("storage", this.onStorage);
      this.look();
    }

    /** What is written, if it holds. @returns {{id: string, until: number} | null} */
    read() {
      try {
        const { id, until } = JSON.parse(localStorage.getItem(this.key) || "{}");
        const left = until - Date.now();
        return left > 0 && left <= TERM ? { id, until } : null;
      } catch {
        return null;
      }
    }

    /** Whether the word could be written. */
    write() {
      try {
        localStorage.setItem(this.key, JSON.stringify({ id: this.id, until: Date.now() + TERM }));
        return true;
      } catch {
        this.holder.denied();
        return false;
      }
    }

    /** @param {number} delay @param {() => void} work */
    later(delay, work) {
      clearTimeout(this.timer);
      this.timer = setTimeout(work, delay);
    }

    /** See how things stand, and do what is due. */
    look() {
      if (this.over) return;
      const word = this.read();
      if (this.has && word?.id !== this.id) {
        this.has = false;
        this.holder.lost();
      }
      if (this.has) {
        if (this.write()) this.later(RENEW, () => this.look());
      } else if (word && word.id !== this.id) {
        this.later(word.until - Date.now() + Math.random() * SETTLE, () => this.look());
      } else {
        // One of many that wait: the first to write makes the others wait again.
        this.later(Math.random() * SETTLE, () => (this.read() ? this.look() : this.seize()));
      }
    }

    seize() {
      if (this.over || this.has || !this.write()) return;
      this.later(SETTLE, () => {
        this.has = this.read()?.id === this.id;
        if (this.has) this.holder.held();
        this.look();
      });
    }

    release() {
      this.over = true;
      clearTimeout(this.timer);
      window.removeEventListener("storage", this.onStorage);
      if (this.read()?.id === this.id) localStorage.removeItem(this.key);
    }
  }

  return Object.freeze({ WebLock, Lease });
})();
