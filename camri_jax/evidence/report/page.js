"use strict";
// Tables are sorted by their columns; blanks come last in either direction.
for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const rises = header.getAttribute("aria-sort") !== "ascending";
      for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", rises ? "ascending" : "descending");
      const key = row => row.cells[column].dataset.value ?? "";
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        const order = column ? x - y : x.localeCompare(y);
        return rises ? order : -order;
      });
      table.tBodies[0].append(...rows);
    });
  });
}
// The slider asks for a recall: numbers, sentence and confusion matrix follow.
for (const section of document.querySelectorAll("[data-prices]")) {
  const prices = JSON.parse(section.querySelector("script").textContent);
  const slider = section.querySelector("input[type=range]");
  const output = section.querySelector("output");
  const said = section.querySelector(".said");
  const body = section.querySelector(".prices tbody");
  const rows = new Map([...body.rows].map(row => [row.dataset.method, row]));
  const cells = section.querySelectorAll(".confusion td");
  const cursors = section.querySelectorAll(".cursor");
  const show = () => {
    const i = Number(slider.value);
    output.textContent = prices.asked[i];
    slider.setAttribute("aria-valuetext", prices.asked[i]);
    said.textContent = prices.said[i];
    for (const [method, texts] of Object.entries(prices.rows[i]))
      texts.forEach((text, j) => { rows.get(method).cells[j + 1].textContent = text; });
    body.append(...Object.keys(prices.rows[i]).map(method => rows.get(method)));
    (prices.confusion[i] ?? []).forEach(([text, share], j) => {
      cells[j].textContent = text;
      cells[j].style.setProperty("--share", share);
    });
    cursors.forEach((cursor, j) =>
      cursor.setAttribute("transform", `translate(${prices.places[j][i]} 0)`));
  };
  slider.addEventListener("input", show);
  section.querySelector(".asked").hidden = false;
  show();
}
