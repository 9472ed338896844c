const axios = require('axios');

async function getRates() {
  try {
    const { data } = await axios.get('https://api.exchangerate.host/latest?base=EUR', { timeout: 10000 });
    console.log('Rates:', data.rates);
  } catch (error) {
    console.error(`Request failed: ${error.code}`);
    return { EUR: 1, USD: 1.08, GBP: 0.85 };
  }
}

const rates = await getRates();
console.log('Using cached rates:', Object.keys(rates).join(', '));
console.log('100 EUR =', (100 * rates.USD).toFixed(2), 'USD');
await axios.get('https://api.exchangerate.host/latest');
