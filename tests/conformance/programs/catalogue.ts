import * as cheerio from "npm:cheerio";

interface Product {
  id: number;
  name: string;
  price: number;
  inStock: boolean;
}

const html: string = await Deno.readTextFile("catalogue.html");
const $ = cheerio.load(html);

const products: Product[] = $("div.product")
  .map((_, el): Product => ({
    id: Number($(el).attr("data-id")),
    name: $(el).find("h2").text().trim(),
    price: parseFloat($(el).find(".price").text().replace(/[^\d.]/g, "")),
    inStock: !$(el).hasClass("sold-out"),
  }))
  .get();

const total = products.reduce((sum: number, p) => sum + p.price, 0);
console.log(`Products: ${products.length}`);
console.log(`Average price: ${(total / products.length).toFixed(2)}`);
console.log(`In stock: ${products.filter((p) => p.inStock).map((p) => p.name).join(", ")}`);
await Deno.writeTextFile("products.json", JSON.stringify(products, null, 2));
products[0]
