/*
 * Faye's server as the benchmark runs it: its defaults, everything in memory, and polls held as
 * long as ours. Started by bench/polls.py as `node faye.js FOLDER PORT`; FOLDER has its package.
 */
"use strict";

const http = require("node:http");
const {createRequire} = require("node:module");

const [folder, port] = process.argv.slice(2);
const faye = createRequire(`${folder}/`)("faye");

// The publisher keeps one connection for the whole run.
const server = http.createServer({keepAliveTimeout: 300_000});
new faye.NodeAdapter({mount: "/bayeux", timeout: 25}).attach(server);
server.listen({port: Number(port), host: "127.0.0.1", backlog: 4096});
