// The npm package bedrock-agentcore, used as its documentation does; prints what it answered.
import { readFileSync } from 'node:fs';
import { CodeInterpreter } from 'bedrock-agentcore/code-interpreter';

const { environment, code } = JSON.parse(readFileSync(0));
Object.assign(process.env, environment);

const interpreter = new CodeInterpreter({});
const found = {};
found.started = await interpreter.startSession({ sessionName: 'from-npm', timeout: 600 });
found.startedTwice = await interpreter.startSession().catch((error) => error.message);

found.code = {};
for (const [name, [language, text]] of Object.entries(code)) {
  found.code[name] = await interpreter.executeCode({ language, code: text });
}
await interpreter.executeCode({ code: 'kept = 1' });
found.cleared = await interpreter.executeCode({ code: "print('kept' in globals())", clearContext: true });
found.command = await interpreter.executeCommand({ command: 'echo from the shell; echo and an error >&2; exit 3' });

const files = [{ path: 'dir/a.txt', content: 'the content' }, { path: 'b.txt', content: 'ünï' }];
found.write = await interpreter.writeFiles({ files });
found.read = await interpreter.readFiles({ paths: ['dir/a.txt', 'b.txt'] });
await interpreter.executeCode({ code: "open('made.txt', 'w').write('by code')" });
found.readMade = await interpreter.readFiles({ paths: ['made.txt'] });
found.readMissing = await interpreter.readFiles({ paths: ['nowhere.txt'] });
found.list = await interpreter.listFiles({ path: 'dir' });
found.listAll = await interpreter.listFiles();
found.remove = await interpreter.removeFiles({ paths: ['b.txt'] });
found.readRemoved = await interpreter.readFiles({ paths: ['b.txt'] });

found.described = await interpreter.getSession();
const second = new CodeInterpreter({});
found.implicit = await second.executeCode({ code: "print('kept' in globals())" });
found.page = await interpreter.listSessions({ maxResults: 1 });
found.pages = [];
for (let page = { nextToken: undefined }; ; ) {
  page = await interpreter.listSessions({ maxResults: 1, nextToken: page.nextToken });
  found.pages.push(...page.items.map((item) => item.sessionId));
  if (!page.nextToken) break;
}
found.ready = (await interpreter.listSessions({ status: 'READY', maxResults: 100 })).items;
await second.stopSession();
const sessionId = found.started.sessionId;
await interpreter.stopSession();
await interpreter.stopSession();
found.terminated = (await interpreter.listSessions({ status: 'TERMINATED', maxResults: 100 })).items;
found.describedAgain = await interpreter.getSession({ sessionId });
found.unknown = await interpreter.getSession({ sessionId: '01K00Z3F8WZ9KBBW4QGRJCVBHH' }).catch((error) => error.name);
console.log(JSON.stringify(found));
