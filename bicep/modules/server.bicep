// The conversation server: an always-on web app on its own plan, with a slot and scaling where the environment has them.

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
@description('Identity of the app and its slot.')
param identity appIdentity
@description('Delegated subnet for outbound traffic; empty without a private network.')
param subnetId string
@description('Size of the plan, such as P2v3.')
param skuName string
@description('Instances; with scaling, those to begin with.')
@minValue(1)
param instances int
@description('Whether the plan\'s instances are spread over zones (needs at least two).')
param zoneRedundant bool
@description('A stack of App Service whose image our program runs in; it is not used otherwise.')
param linuxFxVersion string
@description('Settings that the program reads, by name.')
param settings object
@description('Whether there is a slot to deploy to and swap from.')
param slot bool
@description('Settings of the slot that differ from the app\'s, by name.')
param slotSettings object
@description('Names of settings that the slot must not have.')
param slotWithout string[]
@description('Names of settings that stay where they are in a swap.')
param stickySettings string[]
@description('Whether the number of instances follows load.')
param autoscale bool
@description('Fewest instances with scaling.')
@minValue(1)
param minimumInstances int
@description('Most instances with scaling.')
@minValue(1)
param maximumInstances int
@description('Id of the Front Door from which alone requests are taken; empty for none.')
param frontDoorId string
@description('Addresses (CIDR) that may pass by Front Door: those of people and pipelines.')
param managementAddresses string[]
@description('Host name of one\'s own; empty for none. Its CNAME and `asuid` records must be there before.')
param customDomain string
@description('Vault with the certificate of that name; empty for one that Azure makes and renews.')
param certificateVaultId string
@description('Name of the certificate\'s secret in that vault.')
param certificateSecretName string

var platformSettings = {
  // The zip is mounted as it is.
  WEBSITE_RUN_FROM_PACKAGE: '1'
  SCM_DO_BUILD_DURING_DEPLOYMENT: 'false'
  // SIGTERM, then this long, then SIGKILL. The server drains in DRAIN and hands the rest over.
  WEBSITES_CONTAINER_STOP_TIME_LIMIT: '120'
  WEBSITES_CONTAINER_START_TIME_LIMIT: '120'
  // It starts without its database; a swap waits until it has it.
  WEBSITE_WARMUP_PATH: '/health/live'
  WEBSITE_WARMUP_STATUSES: '200'
  WEBSITE_SWAP_WARMUP_PING_PATH: '/health/ready'
  WEBSITE_SWAP_WARMUP_PING_STATUSES: '200'
  WEBSITE_HEALTHCHECK_MAXPINGFAILURES: '3'
  // Its rule takes streams of over 200 s for a fault and restarts the instance.
  WEBSITE_PROACTIVE_AUTOHEAL_ENABLED: 'false'
}
// The mount may drop the executable bit; exec, so that SIGTERM reaches the server and not a shell.
var command = 'sh -c "cd /home/site/wwwroot && cp conversation-server /tmp/conversation-server && chmod +x /tmp/conversation-server && exec /tmp/conversation-server"'
var appSettings = union(settings, platformSettings, {
  APPLICATIONINSIGHTS_CONNECTION_STRING: insights.properties.ConnectionString
})
var slotAppSettings = toObject(filter(items(union(appSettings, slotSettings)), setting => !contains(slotWithout, setting.key)), setting => setting.key, setting => setting.value)
var siteConfig = {
  linuxFxVersion: linuxFxVersion
  appCommandLine: command
  alwaysOn: true
  use32BitWorkerProcess: false
  webSocketsEnabled: true
  http20Enabled: true
  minTlsVersion: '1.2'
  scmMinTlsVersion: '1.2'
  ftpsState: 'Disabled'
  remoteDebuggingEnabled: false
  healthCheckPath: '/health/ready'
  vnetRouteAllEnabled: !empty(subnetId)
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
}

// The connection string says where telemetry goes and lets nobody in: local authentication is off.
resource insights 'Microsoft.Insights/components@2020-02-02' existing = {
  name: insightsName
}

resource plan 'Microsoft.Web/serverfarms@2025-03-01' = {
  name: '${name}-plan'
  location: location
  tags: tags
  kind: 'linux'
  sku: {
    name: skuName
    capacity: instances
  }
  properties: {
    reserved: true
    zoneRedundant: zoneRedundant
  }
}

resource app 'Microsoft.Web/sites@2025-03-01' = {
  name: name
  location: location
  tags: union(tags, {
    'azd-service-name': 'server'
  })
  kind: 'app,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identity.id}': {}
    }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    clientAffinityEnabled: false
    keyVaultReferenceIdentity: identity.id
    virtualNetworkSubnetId: empty(subnetId) ? null : subnetId
    siteConfig: union(siteConfig, {
      appSettings: map(items(appSettings), setting => {
        name: setting.key
        value: setting.value
      })
    })
  }
}

resource sticky 'Microsoft.Web/sites/config@2025-03-01' = if (slot) {
  parent: app
  name: 'slotConfigNames'
  properties: {
    appSettingNames: stickySettings
  }
}

resource staging 'Microsoft.Web/sites/slots@2025-03-01' = if (slot) {
  parent: app
  name: 'staging'
  location: location
  tags: tags
  kind: 'app,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identity.id}': {}
    }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    clientAffinityEnabled: false
    keyVaultReferenceIdentity: identity.id
    virtualNetworkSubnetId: empty(subnetId) ? null : subnetId
    siteConfig: union(siteConfig, {
      appSettings: map(items(slotAppSettings), setting => {
        name: setting.key
        value: setting.value
      })
    })
  }
  dependsOn: [
    sticky
  ]
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

resource slotFtp 'Microsoft.Web/sites/slots/basicPublishingCredentialsPolicies@2025-03-01' = if (slot) {
  parent: staging
  name: 'ftp'
  properties: {
    allow: false
  }
}

resource slotScm 'Microsoft.Web/sites/slots/basicPublishingCredentialsPolicies@2025-03-01' = if (slot) {
  parent: staging
  name: 'scm'
  properties: {
    allow: false
  }
  dependsOn: [
    slotFtp
  ]
}

module scaling 'scaling.bicep' = if (autoscale) {
  params: {
    name: '${name}-scaling'
    location: location
    tags: tags
    planId: plan.id
    siteId: app.id
    minimumInstances: minimumInstances
    maximumInstances: maximumInstances
  }
}

module domain 'custom-domain.bicep' = if (!empty(customDomain)) {
  params: {
    appName: app.name
    planId: plan.id
    location: location
    tags: tags
    host: customDomain
    certificateVaultId: certificateVaultId
    certificateSecretName: certificateSecretName
  }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: app
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        category: 'AppServiceConsoleLogs'
        enabled: true
      }
      {
        category: 'AppServicePlatformLogs'
        enabled: true
      }
      {
        category: 'AppServiceIPSecAuditLogs'
        enabled: true
      }
      {
        category: 'AppServiceAuditLogs'
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

resource slotDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = if (slot) {
  scope: staging
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        category: 'AppServiceConsoleLogs'
        enabled: true
      }
      {
        category: 'AppServicePlatformLogs'
        enabled: true
      }
    ]
  }
}

@description('Resource id of the app.')
output id string = app.id
@description('Resource id of its plan.')
output planId string = plan.id
@description('Name of the app.')
output name string = app.name
@description('Host name of the app.')
output host string = app.properties.defaultHostName
