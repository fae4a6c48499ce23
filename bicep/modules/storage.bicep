// Queues, large bodies, stop switches, and the function app's packages.

@description('Name of the account: 3 to 24 lower-case letters and digits, unique in all of Azure.')
@minLength(3)
@maxLength(24)
param name string
@description('Region.')
param location string
@description('Tags of every resource.')
param tags object
@description('Log Analytics workspace that takes diagnostics.')
param workspaceId string
@description('Whether the account is reached by private endpoints alone.')
param private bool
@description('Subnet of private endpoints; empty without a private network.')
param privateEndpointSubnetId string
@description('Private DNS zones by service: blob, queue, table; empty without a private network.')
param zoneIds object
@description('How many copies there are, and where.')
@allowed([
  'Standard_LRS'
  'Standard_ZRS'
  'Standard_GZRS'
  'Standard_RAGRS'
  'Standard_RAGZRS'
])
param skuName string
@description('Containers to make.')
param containerNames string[]
@description('Queues to make; the host makes their poison queues itself.')
param queueNames string[]
@description('Container of large bodies. `maintain` deletes them with their events; the lifecycle only what it lost sight of.')
param bodiesContainerName string
@description('Days after which a body is deleted in any case. Above the longest retention of events, held ones included.')
@minValue(91)
param bodyDays int
@description('Principal id of the function app, which owns blobs (the host\'s locks and packages).')
param ownerPrincipalId string
@description('Principal ids of other apps that read and write blobs and queues.')
param contributorPrincipalIds string[]

var storageBlobDataOwner = 'b7e6dc6d-f1e8-4753-8033-0f276bb0955b'
var storageBlobDataContributor = 'ba92f5b4-2d11-453d-a403-e96b0029c9fe'
var storageQueueDataContributor = '974c5e8b-45b9-4653-ba55-5f855dd0fb88'
var storageTableDataContributor = '0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3'
var roles = concat([
  {
    principalId: ownerPrincipalId
    role: storageBlobDataOwner
  }
  {
    principalId: ownerPrincipalId
    role: storageQueueDataContributor
  }
  {
    principalId: ownerPrincipalId
    role: storageTableDataContributor
  }
], map(contributorPrincipalIds, id => {
  principalId: id
  role: storageBlobDataContributor
}), map(contributorPrincipalIds, id => {
  principalId: id
  role: storageQueueDataContributor
}))
var services = private ? [
  'blob'
  'queue'
  'table'
] : []

resource account 'Microsoft.Storage/storageAccounts@2025-08-01' = {
  name: name
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: {
    name: skuName
  }
  properties: {
    accessTier: 'Hot'
    allowBlobPublicAccess: false
    allowSharedKeyAccess: false
    allowCrossTenantReplication: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    publicNetworkAccess: private ? 'Disabled' : 'Enabled'
    networkAcls: {
      bypass: 'AzureServices'
      defaultAction: private ? 'Deny' : 'Allow'
    }
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2025-08-01' = {
  parent: account
  name: 'default'
  properties: {
    deleteRetentionPolicy: {
      enabled: true
      days: 30
    }
    containerDeleteRetentionPolicy: {
      enabled: true
      days: 30
    }
  }
}

resource containers 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-08-01' = [for container in containerNames: {
  parent: blobs
  name: container
  properties: {
    publicAccess: 'None'
  }
}]

resource queues 'Microsoft.Storage/storageAccounts/queueServices@2025-08-01' = {
  parent: account
  name: 'default'
}

resource queue 'Microsoft.Storage/storageAccounts/queueServices/queues@2025-08-01' = [for queueName in queueNames: {
  parent: queues
  name: queueName
}]

resource lifecycle 'Microsoft.Storage/storageAccounts/managementPolicies@2025-08-01' = {
  parent: account
  name: 'default'
  properties: {
    policy: {
      rules: [
        {
          name: 'bodies'
          type: 'Lifecycle'
          enabled: true
          definition: {
            actions: {
              baseBlob: {
                delete: {
                  daysAfterCreationGreaterThan: bodyDays
                }
              }
              snapshot: {
                delete: {
                  daysAfterCreationGreaterThan: 30
                }
              }
            }
            filters: {
              blobTypes: [
                'blockBlob'
              ]
              prefixMatch: [
                '${bodiesContainerName}/deliveries/'
              ]
            }
          }
        }
      ]
    }
  }
}

resource access 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for item in roles: {
  scope: account
  name: guid(account.id, item.principalId, item.role)
  properties: {
    principalId: item.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', item.role)
  }
}]

module endpoints 'private-endpoint.bicep' = [for service in services: {
  name: '${name}-${service}-pe'
  params: {
    name: '${name}-${service}-pe'
    location: location
    tags: tags
    subnetId: privateEndpointSubnetId
    targetId: account.id
    groupId: service
    zoneIds: [
      zoneIds[service]
    ]
  }
}]

resource accountDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: account
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    metrics: [
      {
        category: 'Transaction'
        enabled: true
      }
    ]
  }
}

resource blobDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: blobs
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        categoryGroup: 'audit'
        enabled: true
      }
    ]
  }
}

resource queueDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: queues
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        categoryGroup: 'audit'
        enabled: true
      }
    ]
  }
}

@description('Resource id of the account.')
output id string = account.id
@description('Name of the account.')
output name string = account.name
@description('Address of blobs, with a slash at its end.')
output blobUri string = account.properties.primaryEndpoints.blob
@description('Address of queues, with a slash at its end.')
output queueUri string = account.properties.primaryEndpoints.queue
@description('Address of tables, with a slash at its end.')
output tableUri string = account.properties.primaryEndpoints.table
