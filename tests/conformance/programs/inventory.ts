type Sku = `SKU-${number}`;

interface Item {
  sku: Sku;
  quantity: number;
  price: number;
}

abstract class Store<T extends { sku: Sku }> {
  protected readonly items = new Map<Sku, T>();
  abstract value(): number;
  add(...items: T[]): this {
    for (const item of items) this.items.set(item.sku, item);
    return this;
  }
  get size(): number {
    return this.items.size;
  }
}

class Warehouse extends Store<Item> {
  #log: string[] = [];
  value(): number {
    return [...this.items.values()].reduce((sum, { quantity, price }) => sum + quantity * price, 0);
  }
  remove(sku: Sku, quantity: number): boolean {
    const item = this.items.get(sku);
    if (!item || item.quantity < quantity) {
      this.#log.push(`refused ${sku}`);
      return false;
    }
    item.quantity -= quantity;
    this.#log.push(`removed ${quantity} of ${sku}`);
    return true;
  }
  get log(): readonly string[] {
    return this.#log;
  }
}

const warehouse = new Warehouse().add(
  { sku: "SKU-1", quantity: 10, price: 2.5 },
  { sku: "SKU-2", quantity: 4, price: 10 },
);
console.log(`Items: ${warehouse.size}, value: ${warehouse.value()}`);
