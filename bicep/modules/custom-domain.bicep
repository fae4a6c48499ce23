// A host name of one's own for the server: named, certified, then bound to its certificate.

@description('Name of the web app.')
param appName string
@description('Resource id of its plan.')
param planId string
@description('Region.')
param location string
@description('Tags of every resource.')
param tags object
@description('The host name.')
param host string
@description('Vault with the certificate; empty for one that Azure makes and renews.')
param certificateVaultId string
@description('Name of the certificate\'s secret in that vault.')
param certificateSecretName string

resource app 'Microsoft.Web/sites@2025-03-01' existing = {
  name: appName
}

resource binding 'Microsoft.Web/sites/hostNameBindings@2025-03-01' = {
  parent: app
  name: host
  properties: {
    siteName: appName
    hostNameType: 'Verified'
    sslState: 'Disabled'
  }
}

resource certificate 'Microsoft.Web/certificates@2025-03-01' = {
  name: '${appName}-${host}'
  location: location
  tags: tags
  properties: empty(certificateVaultId) ? {
    serverFarmId: planId
    canonicalName: host
  } : {
    serverFarmId: planId
    keyVaultId: certificateVaultId
    keyVaultSecretName: certificateSecretName
  }
  dependsOn: [
    binding
  ]
}

// The same binding again, with TLS: one template may not state one resource twice, hence the module.
module secured 'custom-domain-tls.bicep' = {
  params: {
    appName: appName
    host: host
    thumbprint: certificate.properties.thumbprint
  }
}

@description('The host name, once it is bound.')
output host string = secured.outputs.host
