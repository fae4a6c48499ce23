// Binds a host name to its certificate.

@description('Name of the web app.')
param appName string
@description('The host name.')
param host string
@description('Thumbprint of its certificate.')
param thumbprint string

resource app 'Microsoft.Web/sites@2025-03-01' existing = {
  name: appName
}

resource binding 'Microsoft.Web/sites/hostNameBindings@2025-03-01' = {
  parent: app
  name: host
  properties: {
    siteName: appName
    hostNameType: 'Verified'
    sslState: 'SniEnabled'
    thumbprint: thumbprint
  }
}

@description('The host name.')
output host string = binding.name
