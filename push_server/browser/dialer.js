/**
 * The way to the server: one attempt after the other, with a pause between them that grows.
 *
 * Rules that hold in this file:
 * - A transport is left only when it is proved not to work while another one does, and the
 *   reason is told to the pages and to the server. There is no interval polling.
 * - No token, no connection: nothing continues as anonymous.
 * - Elapsed time is a difference of wall clocks, never a count of ticks: computers sleep.
 * - What is asked for, and what becomes of the answers, is no concern of this file.
 *
 * Used by connection.js. Needs wire.js, transports.js and session.js.
 */
"use strict";

globalThis.PushDialer = (() => {
  const { Refusal, backoff } = globalThis.PushWire;
  const { Choice, pollOnce } = globalThis.PushTransports;

  /** Time without a first line after which a stream is under suspicion. */
  const HELLO_TIMEOUT = 5000;
  const PROOF_GRACE = 1000;
  /** Timers of hidden frames come once a minute. Where one is later than this, the computer slept,
   * and what hangs since then hangs for no other reason. */
  const ASLEEP = 120000;
  /** Answers to a stream that say that somebody on the way does not know it. */
  const NOT_THERE = [404, 405, 406, 501];
  /** Two missed heartbeats, and a little for the network, mean that nobody is there. */
  const HEARTBEATS = 2;
  const HEARTBEAT_SLACK = 3000;
  /** So many connections in a row that began well and soon ended without a word were cut. */
  const CUTS = 3;
  /** A connection that held this long was a good one: the next failure is a first failure. */
  const STEADY = 5000;

  /**
   * @typedef {{send: (method: string, params: object) => void,
   *   ask: (method: string, params: object) => Promise<any> | null}} Line
   * @typedef {InstanceType<typeof Refusal>} Failure
   * @typedef {object} House
   * @property {InstanceType<typeof globalThis.PushSession>} session
   * @property {() => boolean} wanted whether anybody wants a connection
   * @property {() => {token: string, channels: string[], since: string | null}} ask what to ask
   *   with; called for every request
   * @property {(batch: any[], how: {transport: string, reason: string} | null) => void} take what
   *   has come; `how` it came is said of the first batch of a connection
   * @property {() => number} heartbeat seconds between pings
   * @property {(failure: Failure) => boolean} lessen whether less is asked for after that
   * @property {(failure: Failure | null) => void} lost the connection ended, or there was none
   * @property {(failure: Failure) => void} note is told what is wrong
   * @property {() => void} begin an attempt is made
   * @property {() => void} waiting there is no token to make one with
   * @property {(avoided: [string, Avoided][]) => void} avoided what proved not to work here
   */

  return class PushDialer {
    /** @param {House} house */
    constructor(house) {
      this.house = house;
      this.choice = new Choice();
      this.attempt = 0;
      /** How many streams in a row fell silent after their first lines. */
      this.silences = 0;
      /** How many connections in a row were cut soon. */
      this.cuts = 0;
      /** Whether a WebSocket came to nothing the last time while a poll was answered. */
      this.blocked = false;

      // This one request, or series of polls.
      /** @type {AbortController | null} */
      this.abort = null;
      /** @type {Line | null} the way to ask for something in it, where the transport has one */
      this.line = null;
      /** @type {{reason: string, delay?: number, planned?: boolean} | null} why it was ended */
      this.ending = null;
      this.beats = false;
      this.changes = false;
      /** Whether the request has said yet what it asks for. */
      this.asked = false;
      this.takes = 0;
      this.startedAt = 0;
      /** When it began, or something came. */
      this.movedAt = 0;

      this.running = false;
      /** Whether the server named the length of the pause. */
      this.ordered = false;
      /** @type {(() => void) | null} ends the pause between two attempts */
      this.hurry = null;
    }

    /** Be connected from now on, until nobody wants it. @param {Promise<unknown>} ready */
    async run(ready) {
      if (this.running) return;
      this.running = true;
      await ready;
      while (this.house.wanted()) {
        this.ending = null;
        let delay = 0;
        if (await this.house.session.obtain()) {
          delay = await this.connect();
        } else if (this.house.wanted()) {
          delay = backoff(this.attempt++);
          this.ordered = false;
          this.house.waiting();
        }
        if (this.house.wanted() && delay) await this.pause(delay);
      }
      this.running = false;
    }

    /** @param {number} delay */
    async pause(delay) {
      await new Promise((done) => {
        const timer = setTimeout(done, delay);
        this.hurry = () => {
          clearTimeout(timer);
          done(undefined);
        };
      });
      this.hurry = null;
    }

    /**
     * End what is under way; the loop goes on by itself.
     * @param {string} reason
     * @param {{delay?: number, planned?: boolean}} [how]
     */
    restart(reason, how = {}) {
      if (this.abort && !this.ending) this.ending = { reason, ...how };
      this.abort?.abort();
      if (!how.planned) this.hurry?.();
    }

    /** Nobody wants it any more. */
    stop() {
      this.attempt = 0;
      this.restart("idle", { planned: true });
      this.hurry?.();
    }

    /** Connect once and stay as long as it lasts. Returns the milliseconds to wait then. */
    async connect() {
      const transport = this.choice.best();
      const abort = new AbortController();
      this.abort = abort;
      this.beats = transport.beats;
      this.changes = transport.changes;
      this.asked = false;
      this.takes = 0;
      this.startedAt = this.movedAt = Date.now();
      this.house.begin();
      const late = setTimeout(() => {
        if (this.takes) return;
        if (Date.now() - this.startedAt > ASLEEP) this.restart("silence");
        else this.prove(transport, abort, "buffered");
      }, HELLO_TIMEOUT);
      /** @type {Failure | null} */
      let failure = null;
      try {
        const messages = transport.run({
          ask: () => this.ask(),
          signal: abort.signal,
          onResponse: (response) => this.house.session.setClock(response),
          onLine: (line) => {
            this.line = line;
          },
        });
        for await (const batch of messages) {
          if (abort.signal.aborted) break;
          this.take(batch, transport.name);
          if (this.choice.best() !== transport) this.restart("better", { planned: true });
        }
      } catch (error) {
        failure = error instanceof Refusal ? error : new Refusal(0, "broken", String(error));
      }
      clearTimeout(late);
      this.line = null;
      if (this.isCut(failure)) await this.prove(transport, abort, "cut");
      if (failure && NOT_THERE.includes(failure.status)) {
        await this.prove(transport, abort, "not_found");
      } else if (failure?.code === "no_websocket") {
        await this.prove(transport, abort, "blocked");
      }
      abort.abort();
      this.abort = null;
      return this.delayAfter(failure);
    }

    ask() {
      this.asked = true;
      return { ...this.house.ask(), fallback: this.choice.reason };
    }

    /** @param {any[]} batch @param {string} transport */
    take(batch, transport) {
      this.movedAt = Date.now();
      this.takes += 1;
      this.blocked = false;
      if (this.takes > 1) this.silences = 0;
      const how = { transport, reason: this.choice.reason };
      this.house.take(batch, this.takes === 1 ? how : null);
    }

    /** @param {Failure | null} failure */
    delayAfter(failure) {
      const { ending } = this;
      const isLess = failure !== null && this.house.lessen(failure);
      if (ending?.planned || isLess) return 0;
      if (this.takes && Date.now() - this.startedAt > STEADY) this.attempt = 0;
      this.house.lost(ending ? null : failure);
      this.ordered = ending?.delay !== undefined || Boolean(failure?.retryAfter);
      if (ending?.delay !== undefined) return ending.delay;
      const jitter = 1 + Math.random() / 5;
      return Math.max(backoff(this.attempt++), (failure?.retryAfter || 0) * jitter);
    }

    // ---- Whether it still works

    /** It is worth looking. @param {boolean} isLost whether it cannot have survived */
    wake(isLost) {
      if (this.hurry) {
        // A delay that the server asked for is kept: it spreads us on purpose.
        if (!this.ordered) this.hurry();
      } else if (isLost) {
        this.restart("resume");
      } else if (this.isSilent(1)) {
        this.restart("silence");
      }
    }

    /** @param {number} heartbeats */
    isSilent(heartbeats) {
      if (!this.takes || !this.beats) return false;
      const patience = heartbeats * this.house.heartbeat() * 1000 + HEARTBEAT_SLACK;
      return Date.now() - this.movedAt > patience;
    }

    /** Look whether heartbeats are missing. */
    check() {
      if (!this.abort || !this.isSilent(HEARTBEATS)) return;
      // A stream that stops after its first lines, twice, is held up by something on the way.
      if (this.takes <= 1) this.silences += 1;
      this.movedAt = Date.now();
      if (this.silences < 2) this.restart("silence");
      else this.prove(this.choice.best(), this.abort, "stalled");
    }

    /**
     * Whether connections are cut here: something on the way ends each after a while. A server
     * says why it ends one, or is away for a moment and not several times in a row.
     * @param {Failure | null} failure
     */
    isCut(failure) {
      const soon = HEARTBEATS * this.house.heartbeat() * 1000;
      const isSudden = this.takes > 0 && !this.ending && !failure?.status;
      this.cuts = isSudden && Date.now() - this.startedAt < soon ? this.cuts + 1 : 0;
      return this.cuts >= CUTS;
    }

    /**
     * A transport is suspected. If a poll is answered where it brought nothing, it is proved not
     * to work here (a proxy that collects the whole response, say); if the poll fails as well,
     * the network or the server is to blame and moving on would not help.
     * @param {{name: string}} transport
     * @param {AbortController} abort
     * @param {string} reason
     */
    async prove(transport, abort, reason) {
      if (this.choice.isLast(transport)) return;
      const takes = this.takes;
      const token = this.house.session.token || "";
      /** @type {Failure | null} */
      const failure = await pollOnce({ token, channels: [], timeout: 0, signal: abort.signal })
        .then(() => null, (error) => error);
      // Where everything hung for a moment, the poll may only have been the first to come through.
      const mayCome = reason === "buffered" || reason === "stalled";
      if (!failure && mayCome) await new Promise((done) => setTimeout(done, PROOF_GRACE));
      if (abort.signal.aborted || takes !== this.takes) return;
      if (failure?.status === 401) this.house.session.refuse(token);
      // A server that is just starting may refuse the one and answer the other.
      const isDoubtful = reason === "blocked" && !this.blocked;
      this.blocked = !failure && reason === "blocked";
      this.cuts = 0;
      if (!failure && !isDoubtful) {
        this.choice.avoid(transport.name, reason);
        this.house.avoided([...this.choice.avoided]);
      }
      if (failure) this.house.note(failure);
      const wait = failure?.retryAfter
        ? { delay: failure.retryAfter * (1 + Math.random() / 5) } : {};
      this.restart(failure ? "silence" : "fallback", { planned: !failure, ...wait });
    }
  };
})();
