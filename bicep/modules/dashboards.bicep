// One workbook: every signal of the table on its panel.

@description('What every name begins with.')
param prefix string
@description('Region.')
param location string
@description('Tags of every resource.')
param tags object
@description('Workspace of Application Insights, whose metrics are shown.')
param workspaceId string
@description('Resource ids of what the platform measures, by resource type.')
param targets object

// Rows differ in what they have; any() keeps the compiler from giving them one type.
var signals = any(loadJsonContent('../signals.json')).signals
var ours = filter(signals, signal => contains(signal.source, 'only'))
var platform = filter(signals, signal => !contains(signal.source, 'only') && contains(targets, signal.source.resource))
var panels = union(map(signals, signal => signal.panel), [])
// One point a minute and role, as the alerts see it.
var series = {
  highest: 'max(coalesce(Max, Sum))'
  throughout: 'min(coalesce(Min, Sum))'
  average: 'sum(Sum) / sum(ItemCount)'
  lowest: 'min(coalesce(Min, Sum))'
  total: 'sum(Sum)'
  share: 'sum(Sum)'
  p95: 'percentilew(Sum / ItemCount, ItemCount, 95)'
}
var aggregations = {
  highest: 3
  average: 4
  lowest: 2
  total: 1
}
var content = {
  version: 'Notebook/1.0'
  fallbackResourceIds: [
    workspaceId
  ]
  items: concat([
    {
      type: 9
      name: 'time'
      content: {
        version: 'KqlParameterItem/1.0'
        parameters: [
          {
            id: guid(prefix, 'time')
            name: 'TimeRange'
            type: 4
            isRequired: true
            value: {
              durationMs: 14400000
            }
          }
        ]
      }
    }
  ], map(panels, panel => {
    type: 12
    name: panel
    content: {
      version: 'NotebookGroup/1.0'
      groupType: 'editable'
      title: panel
      items: concat(map(filter(ours, signal => signal.panel == panel), signal => {
        type: 3
        name: signal.name
        customWidth: '33'
        content: {
          version: 'KqlItem/1.0'
          title: '${signal.name}: ${signal.source.metric}'
          noDataMessage: 'No samples.'
          queryType: 0
          resourceType: 'microsoft.operationalinsights/workspaces'
          crossComponentResources: [
            workspaceId
          ]
          timeContextFromParameter: 'TimeRange'
          visualization: 'linechart'
          query: 'AppMetrics | where Name == "${signal.source.metric}" | summarize ${series[signal.measure]} by bin(TimeGenerated, 1m), AppRoleName'
        }
      }), map(filter(platform, signal => signal.panel == panel), signal => {
        type: 10
        name: signal.name
        customWidth: '33'
        content: {
          version: 'MetricsItem/2.0'
          chartType: 2
          chartId: guid(prefix, signal.name)
          title: '${signal.name}: ${signal.source.metric}'
          resourceType: toLower(signal.source.resource)
          resourceIds: [
            targets[signal.source.resource]
          ]
          timeContextFromParameter: 'TimeRange'
          metrics: [
            {
              namespace: toLower(signal.source.resource)
              metric: '${toLower(signal.source.resource)}--${signal.source.metric}'
              aggregation: aggregations[signal.measure]
            }
          ]
        }
      }))
    }
  }))
}

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  name: guid(resourceGroup().id, prefix, 'signals')
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    category: 'workbook'
    displayName: '${prefix} signals'
    sourceId: workspaceId
    version: '1.0'
    serializedData: string(content)
  }
}

@description('Resource id of the workbook.')
output workbookId string = workbook.id
