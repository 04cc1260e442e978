/**
 * One connection for all frames of a browser that has no SharedWorker: one of them leads.
 *
 * The leader runs the connection. The others reach it over BroadcastChannels, which look like
 * ports to both sides, so neither the connection nor the frame knows the difference. Who leads is
 * who holds a lock (see locks.js); the others wait for it, so that one of them goes on at once
 * when the leader's tab is closed.
 *
 * Rules that hold in this file:
 * - Only frames that may share a connection meet here: the name says user, session and rights.
 * - Two leaders for a moment cost a second connection and nothing else: a page attaches to one.
 * - A leader that goes tells everybody the cursor before it gives up the lock, so that its heir
 *   can go on for all with one request. Whoever did not hear it catches up from its own cursor.
 * - A leader answers from a message handler, because the timers of a hidden frame are slow. One
 *   that does not answer a frame that is looked at sleeps or is dead, and is replaced.
 *
 * Used by frame.js. Needs wire.js and locks.js.
 */
"use strict";

globalThis.PushShare = (() => {
  const { randomId } = globalThis.PushWire;

  /** How often a frame that is looked at makes sure of its leader, and how long that may take. */
  const WATCH = 5000;
  const ANSWER = 2000;
  /** An heir waits this long for the others to come, so that the first request is for all. */
  const ROLL_CALL = 60;

  /** One end of a private line; a MessagePort as far as anybody can tell. */
  class Line {
    /** @param {string} name */
    constructor(name) {
      /** @type {((event: {data: any}) => void) | null} */
      this.onmessage = null;
      /** @type {BroadcastChannel | null} */
      this.channel = new BroadcastChannel(name);
      this.channel.onmessage = ({ data }) => this.onmessage?.({ data });
    }

    /** @param {any} message */
    postMessage(message) {
      this.channel?.postMessage(message);
    }

    close() {
      this.channel?.close();
      this.channel = null;
    }
  }

  /**
   * @typedef {object} Member what a frame brings along
   * @property {(options: {ready: Promise<unknown>}) => any} lead makes the connection
   * @property {(port: any) => void} attach is given the way to whoever leads now
   * @property {() => void} denied nobody can lead in this way, as the browser forbids it
   */

  return class PushShare {
    /**
     * @param {string} name
     * @param {any} Lock one of those in locks.js
     * @param {Member} member
     */
    constructor(name, Lock, member) {
      this.name = name;
      this.member = member;
      this.id = randomId();
      /** Who leads, as far as we know; empty if nobody does. */
      this.leader = "";
      /** The leader whom we have been let in by. */
      this.joined = "";
      /** Whether the leader was heard of since the last question. */
      this.heard = false;
      /** @type {any} */
      this.doubt = 0;
      /** The connection, if we lead. @type {any} */
      this.connection = null;
      /** As a follower: the way to the leader. @type {Line | null} */
      this.line = null;
      /** As a leader: the ways to the followers. @type {Set<Line>} */
      this.lines = new Set();
      this.hall = new BroadcastChannel(name);
      this.hall.onmessage = ({ data }) => this.hear(data);
      this.watch = setInterval(() => this.check(), WATCH);
      this.say("who");
      this.lock = new Lock(name, { held: () => this.lead(), lost: () => this.abdicate(),
                                   denied: () => member.denied() });
    }

    /** @param {string} type @param {{to?: string, line?: string}} [more] */
    say(type, more) {
      this.hall.postMessage({ type, from: this.id, ...more });
    }

    /** @param {{type: string, from: string, to: string, line: string}} message */
    hear({ type, from, to, line }) {
      if (type === "who" && this.connection) this.say("leader");
      else if (type === "leader" && !this.connection) this.follow(from);
      else if (type === "join" && to === this.id && this.connection) this.admit(line);
    }

    // ---- Following

    /** @param {string} leader */
    follow(leader) {
      this.heard = true;
      if (leader === this.leader) return;
      this.leader = leader;
      const before = this.line;
      const name = randomId();
      const line = new Line(name);
      this.line = line;
      line.onmessage = () => {
        // The leader has opened its end.
        this.joined = leader;
        this.member.attach(line);
        before?.close();
      };
      this.say("join", { to: leader, line: name });
    }

    /** Make sure that somebody leads. Called now and then, and when somebody looks at the page. */
    check() {
      if (this.connection || document.hidden) return;
      this.heard = false;
      if (this.joined !== this.leader) this.leader = "";
      this.say("who");
      clearTimeout(this.doubt);
      this.doubt = setTimeout(() => {
        if (!this.heard && !this.connection) this.lock.seize();
      }, ANSWER);
    }

    /** The leader does not know us any more. */
    again() {
      if (this.connection) {
        this.attachOwn();
      } else {
        this.leader = "";
        this.say("who");
      }
    }

    // ---- Leading

    lead() {
      clearTimeout(this.doubt);
      if (this.connection) return;
      const isHeir = this.line !== null;
      const ready = new Promise((done) => setTimeout(done, isHeir ? ROLL_CALL : 0));
      this.leader = "";
      this.connection = this.member.lead({ ready });
      this.say("leader");
      this.attachOwn();
    }

    attachOwn() {
      const { port1, port2 } = new MessageChannel();
      this.connection.accept(port1, true);
      this.member.attach(port2);
      this.line?.close();
      this.line = null;
    }

    /** @param {string} name of the line that a follower has opened */
    admit(name) {
      const line = new Line(name);
      this.lines.add(line);
      this.connection.accept(line);
      const take = line.onmessage;
      line.onmessage = (event) => {
        take?.(event);
        if (event.data.type === "detach") this.dismiss(line);
      };
      line.postMessage({ type: "open" });
    }

    /** @param {Line} line */
    dismiss(line) {
      line.close();
      this.lines.delete(line);
    }

    /** Another one leads: while we slept, it could not wait. */
    abdicate() {
      this.retire();
      this.say("who");
    }

    retire() {
      this.connection?.retire();
      this.connection = null;
      for (const line of [...this.lines]) this.dismiss(line);
    }

    /** The page is left, or closed. */
    leave() {
      clearInterval(this.watch);
      clearTimeout(this.doubt);
      this.retire();
      this.lock.release();
      this.line?.close();
      this.hall.close();
    }
  };
})();
