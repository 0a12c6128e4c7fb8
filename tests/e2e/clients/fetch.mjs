// Sends requests by Node's fetch and prints how often each status came: run by `test_clients.py`.
// Arguments: the address of a service, of one without a model, and how many requests of each kind.
const [service, withoutModel, count] = process.argv.slice(2);
const body = '{"user_id": "4", "item_ids": ["1", "2", "3"]}';
const sizes = [...Array(12).fill(700_000), ...Array(6).fill(1_500_000), 5_000_000, 20_000_000];
const outcomes = {};
for (let n = 0; n < Number(count); n++) {
  for (const [url, sent] of [[service, body], [service, Buffer.alloc(sizes[n % sizes.length], "x")], [withoutModel, body]]) {
    let outcome;
    try {
      const response = await fetch(`${url}/rank`, {method: "POST", headers: {"Content-Type": "application/json"}, body: sent});
      await response.json();
      outcome = String(response.status);
    } catch (error) {
      outcome = `${error.name}: ${error.message}: ${error.cause?.code ?? error.cause}`;
    }
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
  }
}
console.log(JSON.stringify(outcomes));
