const http = require('http');

const counters = {};
const server = http.createServer((req, res) => {
  let body = '';
  req.on('data', (chunk) => (body += chunk));
  req.on('end', () => {
    const name = req.url.slice(1);
    if (req.method === 'POST') counters[name] = (counters[name] ?? 0) + JSON.parse(body).by;
    res.writeHead(name in counters ? 200 : 404, { 'Content-Type': 'application/json' });
    res.end(JSON.stringify({ name, value: counters[name] ?? null }));
  });
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const base = `http://127.0.0.1:${server.address().port}`;

const post = (name, by) => fetch(`${base}/${name}`, { method: 'POST', body: JSON.stringify({ by }) }).then((r) => r.json());
await Promise.all([1, 2, 3, 4].map((by) => post('hits', by)));
console.log(await (await fetch(`${base}/hits`)).json());
console.log('Unknown:', (await fetch(`${base}/other`)).status);
server.closeAllConnections();
await new Promise((resolve) => server.close(resolve));
console.log('Closed');
