// Azure OpenAI: one account, its deployments, and who may call them.

@description('Name of the account, also its subdomain: unique in all of Azure.')
param name string
@description('Region that has the models; it need not be that of the apps.')
param location string
@description('Region of the network, for the private endpoint.')
param networkLocation string
@description('Tags of every resource.')
param tags object
@description('Log Analytics workspace that takes diagnostics.')
param workspaceId string
@description('Whether the account is reached by a private endpoint alone.')
param private bool
@description('Subnet of private endpoints; empty without a private network.')
param privateEndpointSubnetId string
@description('Private DNS zones: cognitive, openai, aiServices; empty without a private network.')
param zoneIds object
@description('Principal ids of apps that call models.')
param userPrincipalIds string[]
@description('Models to deploy.')
param deployments modelDeployment[]

@description('One model, deployed.')
@export()
type modelDeployment = {
  @description('Name of the deployment.')
  name: string
  @description('The model\'s name at its maker.')
  model: string
  @description('Version of the model, a date.')
  version: string
  @description('Where requests are worked on.')
  sku: 'Standard' | 'DataZoneStandard' | 'GlobalStandard'
  @description('Thousands of tokens a minute; requests a minute follow from it.')
  capacity: int
}

var cognitiveServicesOpenAiUser = '5e0bd9bd-7b93-4f28-af87-19fc36ad61bd'

resource account 'Microsoft.CognitiveServices/accounts@2025-12-01' = {
  name: name
  location: location
  tags: tags
  kind: 'OpenAI'
  sku: {
    name: 'S0'
  }
  properties: {
    // Tokens of Entra are taken at a name of one's own alone.
    customSubDomainName: name
    disableLocalAuth: true
    publicNetworkAccess: private ? 'Disabled' : 'Enabled'
    networkAcls: {
      defaultAction: private ? 'Deny' : 'Allow'
    }
  }
}

@batchSize(1)
resource models 'Microsoft.CognitiveServices/accounts/deployments@2025-12-01' = [for deployment in deployments: {
  parent: account
  name: deployment.name
  sku: {
    name: deployment.sku
    capacity: deployment.capacity
  }
  properties: {
    model: {
      format: 'OpenAI'
      name: deployment.model
      version: deployment.version
    }
    // Another version is another model: it comes by a change of parameters, with its tests, not overnight.
    versionUpgradeOption: 'OnceCurrentVersionExpired'
  }
}]

resource users 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for principalId in userPrincipalIds: {
  scope: account
  name: guid(account.id, principalId, cognitiveServicesOpenAiUser)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', cognitiveServicesOpenAiUser)
  }
}]

module endpoint 'private-endpoint.bicep' = if (private) {
  params: {
    name: '${name}-pe'
    location: networkLocation
    tags: tags
    subnetId: privateEndpointSubnetId
    targetId: account.id
    groupId: 'account'
    zoneIds: [
      zoneIds.cognitive
      zoneIds.openai
      zoneIds.aiServices
    ]
  }
  dependsOn: [
    models
  ]
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: account
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        categoryGroup: 'audit'
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

@description('Resource id of the account.')
output id string = account.id
@description('Address of the account, for AZURE_OPENAI_URL.')
output url string = account.properties.endpoint
