// Checks of a stock Phoenix client against a server: `node checks.mjs {package} {url} [--phoenix] [--no-polling] [--only={part of a name}]`.
//
// Each check prints a line of JSON. With `--phoenix` those are left out that hold only here, so that the rest can be
// run against Phoenix itself: a room channel with the messages of docs/phoenix.md, `POST /set-username` and
// `POST /api/socket-token`. A line `{"control":"restart"}` asks the parent process to restart the server on the same
// port and to answer `done`.

import { resembleBrowser, run } from './kit.mjs'
import { longPolling, longPollingSince18 } from './longpoll.mjs'
import { presence } from './presence.mjs'
import { sockets, socketsSince18 } from './sockets.mjs'
import { topics } from './topics.mjs'

const [name, server, ...flags] = process.argv.slice(2)
const since18 = name === 'phoenix'
if (!since18) resembleBrowser()
const client = await import(name)
const polling = flags.includes('--no-polling') ? {} : { ...longPolling, ...(since18 && longPollingSince18) }
const only = flags.find((flag) => flag.startsWith('--only='))?.slice(7) ?? ''
const choice = { phoenix: flags.includes('--phoenix'), only }
await run({ ...topics, ...presence, ...sockets, ...(since18 && socketsSince18), ...polling }, client, server, choice)
process.exit(0)
