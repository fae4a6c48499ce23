// The function app: Flex Consumption, our own program as a custom handler, storage and packages by identity.

import { appIdentity } from 'identity.bicep'

@description('Name of the app, unique in all of Azure.')
param name string
@description('Region.')
param location string
@description('Tags of every resource.')
param tags object
@description('Log Analytics workspace that takes diagnostics.')
param workspaceId string
@description('Name of Application Insights.')
param insightsName string
@description('Identity of the app.')
param identity appIdentity
@description('Delegated subnet for outbound traffic; empty without a private network.')
param subnetId string
@description('Container of packages, as an address.')
param packageContainerUri string
@description('Settings that the program reads, by name.')
param settings object
@description('Most instances at once.')
@minValue(40)
@maxValue(1000)
param maximumInstances int
@description('Memory of one instance in megabytes.')
@allowed([
  512
  2048
  4096
])
param instanceMemoryMb int
@description('Instances that are always there for HTTP functions.')
@minValue(0)
param alwaysReadyHttp int
@description('Id of the Front Door from which alone requests are taken; empty for none.')
param frontDoorId string
@description('Addresses (CIDR) that may pass by Front Door: those of people and pipelines.')
param managementAddresses string[]

// The connection string says where telemetry goes and lets nobody in: local authentication is off.
resource insights 'Microsoft.Insights/components@2020-02-02' existing = {
  name: insightsName
}

var appSettings = union(settings, {
  APPLICATIONINSIGHTS_CONNECTION_STRING: insights.properties.ConnectionString
})

resource plan 'Microsoft.Web/serverfarms@2025-03-01' = {
  name: '${name}-plan'
  location: location
  tags: tags
  kind: 'functionapp'
  sku: {
    tier: 'FlexConsumption'
    name: 'FC1'
  }
  properties: {
    reserved: true
  }
}

resource app 'Microsoft.Web/sites@2025-03-01' = {
  name: name
  location: location
  tags: union(tags, {
    'azd-service-name': 'handlers'
  })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identity.id}': {}
    }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    keyVaultReferenceIdentity: identity.id
    virtualNetworkSubnetId: empty(subnetId) ? null : subnetId
    outboundVnetRouting: empty(subnetId) ? null : {
      allTraffic: true
    }
    functionAppConfig: {
      runtime: {
        name: 'custom'
        version: '1.0'
      }
      deployment: {
        storage: {
          type: 'blobContainer'
          value: packageContainerUri
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identity.id
          }
        }
      }
      scaleAndConcurrency: {
        maximumInstanceCount: maximumInstances
        instanceMemoryMB: instanceMemoryMb
        alwaysReady: alwaysReadyHttp == 0 ? [] : [
          {
            name: 'http'
            instanceCount: alwaysReadyHttp
          }
        ]
      }
    }
    siteConfig: {
      minTlsVersion: '1.2'
      scmMinTlsVersion: '1.2'
      ftpsState: 'Disabled'
      remoteDebuggingEnabled: false
      http20Enabled: true
      ipSecurityRestrictionsDefaultAction: empty(frontDoorId) ? 'Allow' : 'Deny'
      ipSecurityRestrictions: empty(frontDoorId) ? [] : concat([
        {
          name: 'front-door'
          priority: 100
          action: 'Allow'
          tag: 'ServiceTag'
          ipAddress: 'AzureFrontDoor.Backend'
          headers: {
            'x-azure-fdid': [
              frontDoorId
            ]
          }
        }
      ], map(range(0, length(managementAddresses)), index => {
        name: 'management-${index}'
        priority: 200 + index
        action: 'Allow'
        ipAddress: managementAddresses[index]
      }))
      appSettings: map(items(appSettings), setting => {
        name: setting.key
        value: setting.value
      })
    }
  }
}

resource ftp 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-03-01' = {
  parent: app
  name: 'ftp'
  properties: {
    allow: false
  }
}

resource scm 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-03-01' = {
  parent: app
  name: 'scm'
  properties: {
    allow: false
  }
  dependsOn: [
    ftp
  ]
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: app
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        category: 'FunctionAppLogs'
        enabled: true
      }
    ]
    metrics: [
      {
        category: 'AllMetrics'
        enabled: true
      }
    ]
  }
}

@description('Resource id of the app.')
output id string = app.id
@description('Name of the app.')
output name string = app.name
@description('Host name of the app.')
output host string = app.properties.defaultHostName
