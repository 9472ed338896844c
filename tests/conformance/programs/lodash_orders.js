const _ = require('lodash');
const fs = require('fs');

const orders = JSON.parse(fs.readFileSync('orders.json', 'utf8'));
console.log(`Loaded ${orders.length} orders`);

const paid = _.filter(orders, { status: 'paid' });
const byCustomer = _(paid)
  .groupBy('customer')
  .mapValues((list) => _.round(_.sumBy(list, 'total'), 2))
  .toPairs()
  .orderBy([1], ['desc'])
  .value();

for (const [customer, total] of byCustomer) {
  console.log(`${customer}: ${total.toFixed(2)}`);
}
const [best] = byCustomer[0];
console.log(`Best customer: ${best}`);
fs.writeFileSync('customers.json', JSON.stringify(_.fromPairs(byCustomer), null, 2));
_.chunk(_.range(1, 8), 3)
