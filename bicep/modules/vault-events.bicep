// What the vault tells of its secrets (near their end, past it, a new version) goes to the function app's source `event-grid`.
// Event Grid asks the app whether it wants them: the app has to run, with its secret, before this is deployed.

@description('What every name begins with.')
param prefix string
@description('Region of the vault.')
param location string
@description('Tags of every resource.')
param tags object
@description('Log Analytics workspace that takes diagnostics.')
param workspaceId string
@description('Resource id of the vault.')
param vaultId string
@description('Address of the source: `…/api/webhooks/event-grid`.')
param endpointUrl string
@description('What proves a delivery: the value of WEBHOOK_SECRET_EVENT_GRID.')
@secure()
param webhookSecret string

resource topic 'Microsoft.EventGrid/systemTopics@2025-02-15' = {
  name: '${prefix}-vault'
  location: location
  tags: tags
  properties: {
    source: vaultId
    topicType: 'Microsoft.KeyVault.vaults'
  }
}

resource subscription 'Microsoft.EventGrid/systemTopics/eventSubscriptions@2025-02-15' = {
  parent: topic
  name: 'rotations'
  properties: {
    eventDeliverySchema: 'CloudEventSchemaV1_0'
    filter: {
      includedEventTypes: [
        'Microsoft.KeyVault.SecretNearExpiry'
        'Microsoft.KeyVault.SecretExpired'
        'Microsoft.KeyVault.SecretNewVersionCreated'
      ]
    }
    retryPolicy: {
      maxDeliveryAttempts: 30
      eventTimeToLiveInMinutes: 1440
    }
    destination: {
      endpointType: 'WebHook'
      properties: {
        endpointUrl: endpointUrl
        minimumTlsVersionAllowed: '1.2'
        deliveryAttributeMappings: [
          {
            name: 'x-webhook-secret'
            type: 'Static'
            properties: {
              value: webhookSecret
              isSecret: true
            }
          }
        ]
      }
    }
  }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: topic
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        categoryGroup: 'allLogs'
        enabled: true
      }
    ]
  }
}

@description('Resource id of the topic.')
output topicId string = topic.id
