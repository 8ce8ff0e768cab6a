// A click on a column's title sorts the rows by it, a second one the other way:
// numbers ("72.4 ± 4.8", "3 min 20 s") from the largest, texts from A.
const TIME = /^(?:(\d+) h ?)?(?:(\d+) min ?)?(?:([\d.]+) s)?$/;
const number = (text) => {
  const [, hours, minutes, seconds] = text && text.match(TIME) || [];
  const time = [hours, minutes, seconds].map((part) => +(part || 0));
  return hours || minutes || seconds
    ? time.reduce((sum, part) => 60 * sum + part)
    : parseFloat(text.replace(/,/g, ""));
};
for (const head of document.querySelectorAll("table thead tr")) {
  [...head.cells].forEach((cell, column) => {
    const button = document.createElement("button");
    button.append(...cell.childNodes);
    cell.append(button);
    button.onclick = () => {
      const body = head.closest("table").tBodies[0];
      const rows = [...body.rows].map((row) => {
        const text = row.cells[column].textContent.trim();
        return { row, text, value: number(text) };
      });
      const isText = rows.every(({ value }) => isNaN(value));
      const orders = ["descending", "ascending"];
      const before = cell.getAttribute("aria-sort");
      const order = orders[before ? +(before === orders[0]) : +isText];
      const sign = order === "ascending" ? 1 : -1;
      for (const other of head.cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", order);
      rows.sort((a, b) =>
        isText
          ? sign * a.text.localeCompare(b.text)
          : isNaN(a.value) - isNaN(b.value) || sign * (a.value - b.value) || 0
      );
      body.append(...rows.map(({ row }) => row));
    };
  });
}
