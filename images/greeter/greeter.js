// An app that is nothing but this file. `make run` installs it, as this does:
//   dockscale install images/greeter/greeter.js --type functions
const instance = Math.random().toString(36).slice(2, 8);
let greeted = 0;

function hello(event) {
    const name = new URLSearchParams(event.query_string).get("name") || "world";
    greeted += 1;
    return {
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ greeting: `Hello, ${name}!`, instance, greeted }) + "\n",
    };
}

api.export({
    setup: () => console.log(`instance ${instance} is ready`),
    index: hello, // at /public/apps/greeter/
    hello, // at /public/apps/greeter/hello
});
