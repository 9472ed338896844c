const { v4, v5, validate, version } = require('uuid');
const crypto = require('crypto');

const namespace = '6ba7b810-9dad-11d1-80b4-00c04fd430c8'; // DNS
console.log('v5:', v5('example.com', namespace));

const ids = new Set(Array.from({ length: 1000 }, () => v4()));
console.log('Unique:', ids.size);
console.log('All valid:', [...ids].every((id) => validate(id) && version(id) === 4));
console.log('SHA-256:', crypto.createHash('sha256').update('fixture').digest('hex'));
console.log('HMAC:', crypto.createHmac('sha256', 'key').update('message').digest('base64'));
