const fs = require('node:fs');
const readline = require('node:readline');
const { once } = require('node:events');
const { setTimeout: sleep } = require('node:timers/promises');

const stream = readline.createInterface({ input: fs.createReadStream('trips.csv'), crlfDelay: Infinity });
const zones = new Map();
let header;
stream.on('line', (line) => {
  const cells = line.split(',');
  if (!header) {
    header = cells;
    return;
  }
  const row = Object.fromEntries(header.map((name, i) => [name, cells[i]]));
  const zone = zones.get(row.zone) ?? { trips: 0, fares: 0 };
  zone.trips += 1;
  zone.fares += Number(row.fare);
  zones.set(row.zone, zone);
});
await once(stream, 'close');
await sleep(10);

for (const [name, { trips, fares }] of [...zones].sort()) {
  console.log(`${name}: ${trips} trips, ${fares.toFixed(2)} in fares`);
}
const out = fs.createWriteStream('zones.csv');
out.write('zone,trips\n');
for (const [name, { trips }] of [...zones].sort()) out.write(`${name},${trips}\n`);
out.end();
await once(out, 'finish');
console.log('Written:', fs.statSync('zones.csv').size, 'bytes');
