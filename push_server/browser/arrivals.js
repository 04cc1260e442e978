/**
 * What arrives from the server, and what follows from it for the pages.
 *
 * Rules that hold in this file:
 * - The cursor says up to where everything was handed over, and nothing else. It survives the
 *   connection; what is missing afterwards is fetched with it.
 * - What cannot be proved complete is `reset`. Only a channel that was not there before cannot
 *   have lost anything.
 * - When to connect and what to ask for is decided elsewhere.
 *
 * Used by connection.js. Needs audience.js, channels.js and session.js.
 */
"use strict";

globalThis.PushArrivals = (() => {
  /** "replaced" means that this user has too many connections: hurrying back replaces another. */
  const REPLACED_DELAY = 30000;
  /** Seconds between pings until the server has said it. */
  const HEARTBEAT = 25;

  /**
   * @typedef {InstanceType<typeof globalThis.PushPage>} Page
   * @typedef {object} House
   * @property {InstanceType<typeof globalThis.PushAudience>} audience
   * @property {InstanceType<typeof globalThis.PushChannels>} channels
   * @property {InstanceType<typeof globalThis.PushSession>} session
   * @property {(reason: string, how: {delay?: number, planned?: boolean}) => void} restart
   *   ends the connection for another
   * @property {() => void} present shows the server the token that is in use
   * @property {() => void} adjust has the connection bring the channels that are wanted
   * @property {() => void} revoked the session is over
   */

  return class PushArrivals {
    /** @param {House} house */
    constructor(house) {
      this.house = house;
      /** @type {string | null} */
      this.cursor = null;
      /** Whether the pages have heard of a connection that was lost, or would have to. */
      this.interrupted = false;
      this.heartbeat = HEARTBEAT;
    }

    /** Nobody is left: where anybody was does not matter any more. */
    forget() {
      this.cursor = null;
      this.house.channels.greet([], []);
    }

    /**
     * @param {any[]} batch
     * @param {{transport: string, reason: string} | null} how it came, if it is the first of a
     *   connection
     */
    take(batch, how) {
      this.house.audience.status.heardAt = Date.now();
      if (how) this.begin(batch, how);
      for (const message of batch) {
        if (typeof message?.channel === "string") this.offer(message);
        else if (message) this.control(message);
        if (typeof message?.cursor === "string") this.cursor = message.cursor;
      }
      this.flush();
    }

    /**
     * The first answer of a connection: it works.
     * @param {any[]} batch
     * @param {{transport: string, reason: string}} how
     */
    begin(batch, how) {
      const { audience } = this.house;
      if (!this.cursor) {
        this.interrupted = false;
        for (const page of audience) page.seen.clear();
      }
      const { connection = "", user = "" } = batch.find(({ type }) => type === "hello") || {};
      audience.report({ state: "live", ...how, connection, user, error: null });
    }

    /** @param {Publication} publication */
    offer({ cursor: _cursor, ...publication }) {
      this.house.audience.offer(publication);
    }

    flush() {
      this.house.audience.flush(this.cursor);
    }

    /** @param {Control} message */
    control(message) {
      this.flush();
      const channels = Array.isArray(message.channels) ? message.channels : [];
      if (message.type === "hello") this.hello(message);
      else if (message.type === "recovered") this.recovered(channels);
      else if (message.type === "reset") this.reset(channels, message);
      else if (message.type === "ping") this.house.audience.pulse(message.cursor);
      else if (message.type === "expiring") this.expiring();
      else if (message.type === "degraded") this.delayed(message.degraded === true);
      else if (message.type === "reconnect") this.sentAway(message);
      else if (message.type === "revoked") this.house.revoked();
      else if (message.type === "answered") this.answered(message);
      else if (message.type === "refused") this.refused(message);
      else if (message.type === "join" || message.type === "leave") this.presence(message);
    }

    // ---- Which channels are on

    /** @param {Control} message */
    hello({ channels = [], denied = [], heartbeat, expires, cursor }) {
      const { audience, session } = this.house;
      this.house.channels.greet(channels, denied);
      if (heartbeat > 0) this.heartbeat = heartbeat;
      if (!session.claims && expires > 0) session.planRefresh(session.now() / 1000, expires);
      if (typeof cursor === "string") this.cursor = cursor;
      this.announceAll();
      audience.pulse(this.cursor);
      this.house.adjust();
    }

    /** What was asked for while connected is done. @param {Control} message */
    answered({ method, params, result }) {
      const { channels: names, session } = this.house;
      const { channels = [], denied = [], cursor } = result;
      if (typeof cursor === "string") this.cursor = cursor;
      if (method === "unsubscribe") names.drop(channels);
      else names.add(channels);
      names.deny(denied);
      if (method === "renew") {
        session.presented = params.token;
        names.reconsider();
        this.house.adjust();
      }
      this.announceAll();
    }

    /** Something is not to be had in this connection. @param {Control} message */
    refused({ method, params, error }) {
      if (method === "subscribe" && error.code === "channel_denied") {
        this.house.channels.deny(params.channels);
        this.announceAll();
      } else {
        this.house.restart(method === "renew" ? "token" : "channels", { planned: true });
      }
    }

    announceAll() {
      for (const page of this.house.audience) this.announce(page);
    }

    /** Tell a page which of its channels are on, and which the token does not grant. */
    announce(/** @type {Page} */ page) {
      const { audience, channels, session } = this.house;
      if (audience.status.state !== "live") return;
      const on = page.among([...channels.on]).filter((name) => page.learns(name, "subscribed"));
      // A page that catches up is not here yet: if it left now, it would miss what lies between.
      const cursor = page.held ? undefined : this.cursor;
      if (on.length) page.post({ type: "subscribed", channels: on, cursor });
      audience.deny([...channels.denied], "channel_denied");
      if (page.since && [...page.channels].every((name) => page.told.has(name))) {
        page.catchUp(session, () => audience.has(page)).then(() => this.flush());
      }
    }

    // ---- What is missing

    /** @param {string[]} channels */
    recovered(channels) {
      if (!this.interrupted) return;
      this.interrupted = false;
      this.house.audience.tell("recovered", channels);
    }

    /** @param {string[]} channels @param {Control} message */
    reset(channels, { reason, delay = 0 }) {
      const { audience } = this.house;
      // The cursor did not speak of a channel that was just added: nothing was missed.
      const { before } = this.house.channels;
      const lost = channels.filter((name) => reason !== "unknown" || before.has(name));
      for (const page of audience) page.unsee(channels);
      audience.tell("reset", lost, { reason: String(reason), ...(delay && { delay }) });
    }

    /** The cursor is of no use: nobody can say what is missing. @param {string} reason */
    lose(reason) {
      this.cursor = null;
      this.house.audience.tell("reset", [...this.house.channels.on], { reason });
    }

    // ---- What else there is to know

    /** Somebody came into a channel, or left it. @param {Control} message */
    presence({ type, channels, users }) {
      for (const page of this.house.audience) {
        for (const channel of page.among(channels)) page.post({ type, channel, users });
      }
    }

    /** The server's log is out of reach, or back. @param {boolean} delayed */
    delayed(delayed) {
      this.house.audience.report({ state: delayed ? "delayed" : "live" });
      this.announceAll();
    }

    /** @param {Control} message */
    sentAway({ reason, delay = 0 }) {
      const { session } = this.house;
      if (reason === "expired") session.refuse(session.presented);
      const least = reason === "replaced" ? REPLACED_DELAY * (1 + Math.random()) : 0;
      this.house.restart(String(reason), { delay: Math.max(delay, least) });
    }

    /** The token this connection began with ends soon; there may be a newer one already. */
    expiring() {
      const { session } = this.house;
      if (session.token === session.presented) session.refresh();
      else this.house.present();
    }
  };
})();
