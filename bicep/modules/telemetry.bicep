// Where logs, traces and metrics go: one workspace, Application Insights on it, and who may send.

@description('What every name begins with.')
param prefix string
@description('Region.')
param location string
@description('Tags of every resource.')
param tags object
@description('Days that telemetry is kept.')
@minValue(30)
@maxValue(730)
param retentionDays int
@description('Most gigabytes a day that the workspace takes; -1 for no limit. Beyond it telemetry is lost, not service.')
param dailyQuotaGb int
@description('Principal ids that may send telemetry.')
param publisherPrincipalIds string[]

var monitoringMetricsPublisher = '3913510d-42f4-4e42-8a64-420c390055eb'

resource workspace 'Microsoft.OperationalInsights/workspaces@2025-07-01' = {
  name: '${prefix}-logs'
  location: location
  tags: tags
  properties: {
    sku: {
      name: 'PerGB2018'
    }
    retentionInDays: retentionDays
    workspaceCapping: {
      dailyQuotaGb: dailyQuotaGb
    }
    features: {
      disableLocalAuth: true
    }
  }
}

resource insights 'Microsoft.Insights/components@2020-02-02' = {
  name: '${prefix}-insights'
  location: location
  tags: tags
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: workspace.id
    RetentionInDays: retentionDays
    // The connection string says where, not who: without a token of an identity named below nothing is taken.
    DisableLocalAuth: true
  }
}

resource publishers 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for principalId in publisherPrincipalIds: {
  scope: insights
  name: guid(insights.id, principalId, monitoringMetricsPublisher)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', monitoringMetricsPublisher)
  }
}]

resource workspaceDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: workspace
  name: 'to-workspace'
  properties: {
    workspaceId: workspace.id
    logs: [
      {
        categoryGroup: 'audit'
        enabled: true
      }
    ]
  }
}

@description('Resource id of the workspace.')
output workspaceId string = workspace.id
@description('Name of Application Insights, whose connection string the apps read for themselves.')
output insightsName string = insights.name
