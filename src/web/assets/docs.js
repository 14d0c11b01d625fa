// A file of its own, because the page's policy allows no inline scripts.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#api",
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  persistAuthorization: false,
  // No validator on the internet: nothing leaves the device.
  validatorUrl: null,
});
