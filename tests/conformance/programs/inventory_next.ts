// The warehouse of the previous call is still there
console.log(warehouse.remove("SKU-1", 4), warehouse.remove("SKU-2", 5));
console.log(`Value now: ${warehouse.value() as number}`);

const report = warehouse.log.map((line: string, i: number) => `${i + 1}. ${line}`);
const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(report.join("\n")));
const hex = Array.from(new Uint8Array(digest), (b) => b.toString(16).padStart(2, "0")).join("");
await Deno.writeTextFile("report.txt", report.join("\n"));
console.log("Digest:", hex);
