// The program that this image was made for: what app.json says, and its entry.

import { readFileSync } from "node:fs";

const { HYPHA_SERVER_URL, HYPHA_WORKSPACE, HYPHA_CLIENT_ID, HYPHA_TOKEN, HYPHA_APP_ID } = process.env;
const given = { HYPHA_SERVER_URL, HYPHA_WORKSPACE, HYPHA_CLIENT_ID, HYPHA_TOKEN, HYPHA_APP_ID };

export const app = JSON.parse(readFileSync("/app/app.json", "utf8"));
export const source = readFileSync(`/app/${app.entry}`, "utf8");
export const env = { ...app.env, ...given };

Object.assign(process.env, app.env, JSON.parse(JSON.stringify(given))); // without those that are undefined
