// The npm client as programs in an instance see it: nothing but the dockscale of this instance is at 'localhost'.

import * as client from "./hypha-rpc-websocket.mjs";

export * from "./hypha-rpc-websocket.mjs";

const LOCAL = /^\w+:\/\/(localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])(:\d+)?(\/|$)/;

// What the environment says fills in what the program has left out, unless it means another server.
const directed = (config = {}) => {
  const { HYPHA_SERVER_URL, HYPHA_WORKSPACE, HYPHA_CLIENT_ID, HYPHA_TOKEN, HYPHA_APP_ID } = process.env;
  const { serverUrl, clientId, ...rest } = config;
  const asked = rest.server_url || serverUrl || "";
  if (asked && asked !== HYPHA_SERVER_URL && !LOCAL.test(asked)) return config;
  return {
    ...rest,
    server_url: HYPHA_SERVER_URL,
    workspace: rest.workspace || HYPHA_WORKSPACE,
    client_id: rest.client_id || clientId || HYPHA_CLIENT_ID,
    token: rest.token || HYPHA_TOKEN,
    app_id: rest.app_id || HYPHA_APP_ID,
  };
};

export const connectToServer = (config) => client.connectToServer(directed(config));
export const hyphaWebsocketClient = { ...client.hyphaWebsocketClient, connectToServer };
