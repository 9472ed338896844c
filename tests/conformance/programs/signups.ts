import { readFileSync } from 'node:fs';
import { z } from 'zod';

const Signup = z.object({
  username: z.string().min(3).max(20).regex(/^[a-z0-9_]+$/),
  age: z.number().int().min(18),
  email: z.string().email(),
  plan: z.enum(['free', 'pro']).default('free'),
});
type Signup = z.infer<typeof Signup>;

const raw: unknown[] = JSON.parse(readFileSync('signups.json', 'utf8'));
const accepted: Signup[] = [];
raw.forEach((entry, index) => {
  const result = Signup.safeParse(entry);
  if (result.success) {
    accepted.push(result.data);
    console.log(`Record ${index}: ok`);
  } else {
    const fields = [...new Set(result.error.issues.map((issue) => issue.path.join('.') || '(root)'))].sort();
    console.log(`Record ${index}: invalid ${fields.join(', ')}`);
  }
});
const plans = accepted.reduce<Record<string, number>>((acc, { plan }) => ({ ...acc, [plan]: (acc[plan] ?? 0) + 1 }), {});
console.log(`Accepted: ${accepted.length}`, plans);
