// The console on Static Web Apps. It calls the server's own origin: a linked back end carries neither WebSockets nor long
// requests.

@description('Name of the app.')
param name string
@description('Region of its API side; pages are served everywhere.')
param location string
@description('Tags of every resource.')
param tags object
@description('Size: Free, or Standard for a service level and custom domains with it.')
@allowed([
  'Free'
  'Standard'
])
param skuName string
@description('Host name of one\'s own; empty for none.')
param customDomain string

resource site 'Microsoft.Web/staticSites@2025-03-01' = {
  name: name
  location: location
  tags: union(tags, {
    'azd-service-name': 'console'
  })
  sku: {
    name: skuName
    tier: skuName
  }
  properties: {
    allowConfigFileUpdates: true
    stagingEnvironmentPolicy: 'Disabled'
  }
}

resource domain 'Microsoft.Web/staticSites/customDomains@2025-03-01' = if (!empty(customDomain)) {
  parent: site
  name: empty(customDomain) ? 'none' : customDomain
  properties: {
    validationMethod: 'cname-delegation'
  }
}

@description('Name of the app.')
output name string = site.name
@description('Host name that Azure gave it.')
output host string = site.properties.defaultHostname
