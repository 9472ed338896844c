import _ from "npm:lodash";

const students = [
  { name: "Ada", grades: [92, 88, 95] },
  { name: "Grace", grades: [85, 91, 89] },
  { name: "Linus", grades: [70, 65, 80] },
];

const averages = students.map(({ name, grades }) => ({ name, average: _.round(_.mean(grades), 2) }));
console.table(averages);
for (const { name, average } of averages) console.log(`${name}: ${average}`);

const [passed, failed] = _.partition(averages, (s) => s.average >= 75);
console.log("Passed:", _.map(passed, "name").join(", "));
if (failed.length) console.warn(`Failed: ${_.map(failed, "name")}`);

await Deno.writeTextFile("averages.json", JSON.stringify(_.keyBy(averages, "name")));
_.meanBy(averages, "average").toFixed(3)
