// Key Vault: what secrets there are is seeded from outside (scripts, people), never from here.

@description('Name of the vault: 3 to 24 characters, unique in all of Azure.')
@minLength(3)
@maxLength(24)
param name string
@description('Region.')
param location string
@description('Tags of every resource.')
param tags object
@description('Log Analytics workspace that takes diagnostics.')
param workspaceId string
@description('Whether the vault is reached by a private endpoint alone.')
param private bool
@description('Subnet of private endpoints; empty without a private network.')
param privateEndpointSubnetId string
@description('Private DNS zone of vaults; empty without a private network.')
param zoneId string
@description('Whether nobody at all can purge what was deleted, for 90 days. It cannot be taken back.')
param purgeProtection bool
@description('Principal ids of apps, which read secrets.')
param readerPrincipalIds string[]
@description('Principal id of the pipeline, which reads secrets; empty for none.')
param pipelinePrincipalId string
@description('Object id of the group that administers the vault in an emergency; empty for none.')
param breakGlassGroupId string
@description('Object id of the developers\' group, which reads secrets; empty for none, as in prod.')
param developersGroupId string

var keyVaultSecretsUser = '4633458b-17de-408a-b874-0445c86b69e6'
var keyVaultAdministrator = '00482a5a-887f-4fb3-b363-3b7fe8e74483'
var readers = concat(map(readerPrincipalIds, id => {
  id: id
  type: 'ServicePrincipal'
}), empty(pipelinePrincipalId) ? [] : [
  {
    id: pipelinePrincipalId
    type: 'ServicePrincipal'
  }
], empty(developersGroupId) ? [] : [
  {
    id: developersGroupId
    type: 'Group'
  }
])

resource vault 'Microsoft.KeyVault/vaults@2025-05-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    tenantId: tenant().tenantId
    sku: {
      family: 'A'
      name: 'standard'
    }
    enableRbacAuthorization: true
    enableSoftDelete: true
    softDeleteRetentionInDays: 90
    // False is refused by Azure: it is either on or absent.
    enablePurgeProtection: purgeProtection ? true : null
    publicNetworkAccess: private ? 'Disabled' : 'Enabled'
    networkAcls: {
      bypass: 'AzureServices'
      defaultAction: private ? 'Deny' : 'Allow'
    }
  }
}

resource secretReaders 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for reader in readers: {
  scope: vault
  name: guid(vault.id, reader.id, keyVaultSecretsUser)
  properties: {
    principalId: reader.id
    principalType: reader.type
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', keyVaultSecretsUser)
  }
}]

resource breakGlass 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(breakGlassGroupId)) {
  scope: vault
  name: guid(vault.id, breakGlassGroupId, keyVaultAdministrator)
  properties: {
    principalId: breakGlassGroupId
    principalType: 'Group'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', keyVaultAdministrator)
  }
}

module endpoint 'private-endpoint.bicep' = if (private) {
  params: {
    name: '${name}-vault-pe'
    location: location
    tags: tags
    subnetId: privateEndpointSubnetId
    targetId: vault.id
    groupId: 'vault'
    zoneIds: [
      zoneId
    ]
  }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: vault
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        categoryGroup: 'allLogs'
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

@description('Resource id of the vault.')
output id string = vault.id
@description('Address of the vault, with a slash at its end.')
output uri string = vault.properties.vaultUri
